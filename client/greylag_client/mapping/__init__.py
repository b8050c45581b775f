"""From a supplier's messy table to one that fits a plan's data standard."""
