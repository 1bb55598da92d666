"""How fast the bus is, beside the smallest correct queue in hand-written SQL, in the same run on the same server.

``python -m benchmarks`` runs every phase and writes ``build/bench.json``; ``python -m benchmarks profile`` shows where
a worker's time goes. docs/benchmarks.md says how to read the numbers.

- ``application``  the bus under test: event types, payload, handlers that do nothing
- ``floor``        what it is measured against
- ``server``       PostgreSQL and a fresh database for every measurement
- ``child``, ``processes``  workers in processes of their own
- ``plan``, ``results``     how much is done; what came of it, against the bars
- ``publishing`` (A, B, C), ``draining`` (D1, D2, E, G), ``latency`` (F), ``crowd`` (P16), ``held`` (H), ``straggler``,
  ``kept``  the phases; ``engine`` claims and settles for them without a worker
- ``inbox``        the phase of the webhooks: ``web`` is what is served, ``load`` who sends
- ``profiling``    where the time goes
- ``peer_cauce``   the bus in another harness, beside other queues
"""
