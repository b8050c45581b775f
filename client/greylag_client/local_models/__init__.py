"""Models that one firm fits on its own rows without privacy: to compare with, and to use."""
