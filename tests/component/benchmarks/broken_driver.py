"""A driver that goes wrong in the way that its argument says."""

import json
import sys
import time

ANSWERS = {
    "no json": ["this is no JSON"],
    "no object": ["5"],
    "a wrong field": ['{"loaded": {}}', '{"request": {"id": 0, "colour": "red"}}'],
    "an error": ['{"loaded": {}}', '{"error": "out of paper"}'],
    "gone": [],
    "good": ['{"loaded": {}}', '{"done": true}'],
}

for answer in ANSWERS[sys.argv[1]]:
    json.loads(sys.stdin.readline())
    print(answer, flush=True)
if ANSWERS[sys.argv[1]]:
    sys.stdin.read()
    time.sleep(0.1)
