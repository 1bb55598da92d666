"""The contract of a bus: its events described for others, and compared with how they were.

- ``described``: the JSON Schema of all events, and the same as AsyncAPI
- ``differences``: whether readers of one description can read what was stored under another
"""
