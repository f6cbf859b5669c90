"""Predict with nnU-Net v2's command line, and print JSON of the seconds in the network.

Usage: PYTHON_OF_V2 peer_predict_v2.py OPTIONS OF nnUNetv2_predict_from_modelfolder
"""

import json
import time

if __name__ == "__main__":  # its processes import this file, too
    from nnunetv2.inference import predict_from_raw_data as module

    network, spent = module.nnUNetPredictor._internal_maybe_mirror_and_predict, [0.0]

    def timed(self, tiles):
        started = time.perf_counter()
        found = network(self, tiles)
        spent[0] += time.perf_counter() - started
        return found

    module.nnUNetPredictor._internal_maybe_mirror_and_predict = timed
    module.predict_entry_point_modelfolder()
    print("\n" + json.dumps({"network": spent[0]}), flush=True)
