# The Hippocampus example of nnU-Net v1, in its words: one fold of one network.
set -e
nnUNet_convert_decathlon_task -i "$TASKS/Task04_Hippocampus"
nnUNet_plan_and_preprocess -t 4
nnUNet_train 3d_fullres nnUNetTrainerV2 4 0
nnUNet_predict -i "$nnUNet_raw_data_base/nnUNet_raw_data/Task004_Hippocampus/imagesTs/" -o "$OUT/Task004" -t 4 -m 3d_fullres -f 0
nnUNet_evaluate_folder -ref "$TASKS/Task04_Hippocampus_labelsTs" -pred "$OUT/Task004" -l 1 2
