"""The lead's coordinator: enrolment, rounds, log."""
