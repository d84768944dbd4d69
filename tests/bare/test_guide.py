#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""docs/host-guide.md says how long each part is: is it?"""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROOM = 0.1  # so much of it may have changed


def main():
    with open(os.path.join(ROOT, 'docs/host-guide.md'), encoding='utf-8') as file:
        rows = re.findall(r'^\| [^|]+ \| `([\w/.]+)` \| (\d+) \|', file.read(), re.M)
    wrong = []
    for name, lines in rows:
        with open(os.path.join(ROOT, name), encoding='utf-8') as file:
            found = len(file.readlines())
        if abs(found - int(lines)) > ROOM * found:
            wrong.append(f'{name} has {found} lines, the guide says {lines}')
    if len(rows) < 10:
        wrong.append(f'{len(rows)} rows: the table is not understood')
    print('\n'.join(wrong) or f'{len(rows)} sizes are right')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
