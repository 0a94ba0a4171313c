"""
What the gateway costs, as a ratio to copying bytes: `make bench`.

Every server is a process of its own on loopback. `docs/performance.md` says what is measured and
how to read it; `campaign.py` is the order in which it happens.
"""
