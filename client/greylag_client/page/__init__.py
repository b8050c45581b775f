"""The firm's own page on loopback: what was asked, spent, refused and got, and how to stop it.

``source`` reads a firm's directory into facts, ``view`` turns facts into what is shown, ``app``
serves that to a browser with a session, ``serve`` runs it beside the agents.
"""
