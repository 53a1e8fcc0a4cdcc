"""Contract checks: what every method, ours or a plugin's, promises through its traits, put to the test.

``run_checks("gatys")`` or, for a class that is in no registry yet, ``run_checks(MyMethod)``; on the command line
``zoo check NAME``. A check is a function that raises when a promise is broken; the traits select which ones apply. The
images are small and drawn from a seed, optimisations run a handful of steps, so that a method is through in seconds.

:data:`CHECKS` lists all by name. Nothing here prints.
"""

from __future__ import annotations

# Importing a module registers its checks.
from zoo.checks import arguments, controls, declared, pixels, progress, state  # noqa: F401
from zoo.checks.core import CHECKS, Check, CheckResult, Factory, Subject, run_check, run_checks, select

__all__ = ["CHECKS", "Check", "CheckResult", "Factory", "Subject", "run_check", "run_checks", "select"]
