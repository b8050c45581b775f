"""How much of a table is read: far more than a firm holds, far less than ends a process."""

MAX_BYTES = 256 << 20  # of a file, and of a workbook unpacked
MAX_CELLS = 3_000_000  # such as 20,000 rows of 150 columns; a workbook of it takes 1 GB
MAX_TEXT = 32_767  # characters of a cell, as in spreadsheet programs; what is beyond is cut off
