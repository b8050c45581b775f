"""How good a firm's table is, told to the firm alone: nothing of it leaves the machine."""
