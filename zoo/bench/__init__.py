"""The benchmark harness: a protocol becomes cells, every cell is measured in its method's own process, and rows stay.

    protocol.yaml -> protocol -> plan -> passes (measure, throughput, largest_size, score) -> rows.jsonl -> zoo.report
                                         runner: one loop over the events of workers

A pass says what is left to do and writes down what came of it; its workers are in :mod:`zoo.bench.workers`. Pictures
and rows may come from another run, from a folder or from a cluster's shards (``from_run``, ``from_folder``,
``from_cluster``). The harness knows methods through ``Stylizer`` and ``Traits`` alone, and reports know rows alone.
:func:`zoo.bench.run.run` does all of it; the command line shows it.
"""
