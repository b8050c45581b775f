"""``greylag-lab probe``: whether this build's contributions keep what the terms promise."""
