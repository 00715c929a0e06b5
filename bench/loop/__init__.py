"""The proof of the closed loop: an agent that knows an address and a key gets better at games that it never saw.

Its games, the agent, and what is reported of its hours.
"""
