"""The report on a bundle: one set of facts, told in two languages as a page, a PDF and JSON."""
