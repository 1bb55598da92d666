"""Benchmarks of the bus, beside the smallest correct queue in hand-written SQL, in the same run on the same server.

``python -m benchmarks`` runs every phase and writes ``build/bench.json``; ``python -m benchmarks profile`` shows where
a worker's time goes. docs/benchmarks.md says how to read the numbers.

- ``application``  the bus under test: event types, payload, handlers that do nothing
- ``floor``        the hand-written queue that it is compared with
- ``server``       PostgreSQL and a fresh database for every measurement
- ``child``, ``processes``  workers in processes of their own
- ``plan``, ``results``     the sizes of the phases; their results, against the bars
- ``publishing`` (A, B, C), ``draining`` (D1, D2, E, G), ``latency`` (F), ``crowd`` (P16), ``held`` (H), ``straggler``,
  ``kept``  the phases; ``engine`` claims and settles for them without a worker
- ``inbox``        the phase of the webhooks: ``web`` serves, ``load`` sends
- ``profiling``    the time of each function and statement
- ``peer_cauce``   the bus in another harness, beside other queues
"""
