"""A whole consortium on one machine: demo and simulation. Alone may import server and client."""
