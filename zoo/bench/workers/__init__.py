"""What runs in processes of their own, ``python -m zoo.bench.workers.NAME``, each driven by a pass of its parent."""
