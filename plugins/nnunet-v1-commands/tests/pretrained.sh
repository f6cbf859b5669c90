# A model of nnU-Net v1 from a zip ($1), and images ($2) predicted with it.
set -e
nnUNet_install_pretrained_model_from_zip "$1"
nnUNet_predict -i "$2" -o "$OUT" -t Task004_Hippocampus -m 3d_fullres --disable_mixed_precision
