"""The benchmark harness: a protocol becomes cells, every cell is measured in its method's own process, and rows stay.

    protocol.yaml -> protocol.resolve -> plan.plan -> one worker process per method and size -> rows.jsonl -> report
                                                             timing, memory                 metrics from saved outputs

The harness knows methods through ``Stylizer`` and ``Traits`` alone, and reports know rows alone.
:func:`zoo.bench.run.run` does all of it; the command line shows it.
"""
