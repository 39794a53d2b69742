"""One trial of the study in study.yaml: a curve with many valleys, printed as one line of JSON."""

import json
import math
import sys

x = float(sys.argv[1])
print(json.dumps({"y": (x - 0.3) ** 2 + 0.05 * math.sin(40 * x)}))
