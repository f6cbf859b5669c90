"""Predict folders of images with nnU-Net v2 itself; run by v2's Python.

Its sums of windows are kept in half precision; here they are kept in float32, since rounding is not
what is compared.

Usage: v2-python peer_v2_prediction.py JOBS.json, a list of {"model", "images", "output", "folds",
"previous"}.
"""

import json
import sys
from pathlib import Path

import torch
from nnunetv2.inference import predict_from_raw_data as module


def in_float32(*args, dtype=None, **kwargs):
    return zeros(*args, dtype=torch.float32 if dtype == torch.half else dtype, **kwargs)


if __name__ == "__main__":
    zeros, torch.zeros = torch.zeros, in_float32
    for job in json.loads(Path(sys.argv[1]).read_text()):
        predictor = module.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        folds = [fold if fold == "all" else int(fold) for fold in job["folds"]]
        predictor.initialize_from_trained_model_folder(job["model"], folds)
        Path(job["output"]).mkdir(exist_ok=True)
        predictor.predict_from_files_sequential(
            job["images"],
            job["output"],
            save_probabilities=True,
            folder_with_segs_from_prev_stage=job.get("previous"),
        )
