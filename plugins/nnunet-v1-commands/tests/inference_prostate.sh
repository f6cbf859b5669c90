# The inference example of nnU-Net v1 (Prostate), in its words: a pretrained ensemble from a zip ($1), and images ($2).
set -e
nnUNet_install_pretrained_model_from_zip "$1"
nnUNet_predict -t Task004_Hippocampus -i "$2" -o "$OUT/2d" -m 2d --save_npz --disable_tta
nnUNet_predict -t Task004_Hippocampus -i "$2" -o "$OUT/3d" -m 3d_fullres --save_npz --disable_tta
ENSEMBLE=ensemble_2d__nnUNetTrainerV2__nnUNetPlansv2.1--3d_fullres__nnUNetTrainerV2__nnUNetPlansv2.1
nnUNet_ensemble -f "$OUT/2d" "$OUT/3d" -o "$OUT/ensemble" -pp "$RESULTS_FOLDER/nnUNet/ensembles/Task004_Hippocampus/$ENSEMBLE/postprocessing.json"
