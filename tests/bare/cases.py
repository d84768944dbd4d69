# SPDX-License-Identifier: MIT
"""Test functions, said as cmocka says them, so that scripts/test counts each."""
import importlib.machinery
import importlib.util
import os
import sys
import traceback

import machine


def check(condition, *what):
    if not condition:
        raise AssertionError(' '.join(str(part) for part in what))


def equal(found, wanted, what=''):
    check(found == wanted, f'{what}: {found!r}, not {wanted!r}')


def load_script(name):
    """What stands in one of scripts/."""
    path = os.path.join(machine.ROOT, 'scripts', name)
    loader = importlib.machinery.SourceFileLoader(name, path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def run(*functions):
    """Each function is a test; ends the program."""
    reason = machine.missing()
    print(f'[==========] Running {len(functions)} test(s).')
    failed = 0
    for function in functions:
        name = function.__name__
        print(f'[ RUN      ] {name}', flush=True)
        if reason:
            print(f'SKIP {name}: {reason}\n[  SKIPPED ] {name}', flush=True)
            continue
        try:
            function()
        except Exception:  # whatever it is, the others run
            traceback.print_exc(file=sys.stdout)
            failed += 1
            print(f'[  FAILED  ] {name}', flush=True)
        else:
            print(f'[       OK ] {name}', flush=True)
    print(f'[==========] {len(functions)} test(s) run.', flush=True)
    sys.exit(1 if failed else 77 if reason else 0)
