"""The operator's page: who is there, how the runs go, what was refused, and the few clicks that
change something.

``source`` and ``log_index`` read the consortium's files, ``view`` turns that into what is shown,
``app`` serves it to people with an account, ``serve`` runs it beside the coordinator. It shows
what the lead knows anyhow; no firm's budget or data are among that.
"""
