# The Prostate example of nnU-Net v1, in its words: two networks, the best of them or both. v1 trains five folds; here are two.
set -e
nnUNet_convert_decathlon_task -i "$TASKS/Task05_Prostate"
nnUNet_plan_and_preprocess -t 5 --verify_dataset_integrity
for FOLD in 0 1
do
  nnUNet_train 2d nnUNetTrainerV2 Task005_Prostate $FOLD --npz
  nnUNet_train 3d_fullres nnUNetTrainerV2 Task005_Prostate $FOLD --npz
done
nnUNet_find_best_configuration -m 2d 3d_fullres -t 5 -f 0 1
IMAGES="$nnUNet_raw_data_base/nnUNet_raw_data/Task005_Prostate/imagesTs"
nnUNet_predict -i "$IMAGES" -o "$OUT/2d" -tr nnUNetTrainerV2 -m 2d -p nnUNetPlansv2.1 -t Task005_Prostate -f 0 1 -z
nnUNet_predict -i "$IMAGES" -o "$OUT/3d" -tr nnUNetTrainerV2 -m 3d_fullres -p nnUNetPlansv2.1 -t Task005_Prostate -f 0 1 -z
ENSEMBLE=ensemble_2d__nnUNetTrainerV2__nnUNetPlansv2.1--3d_fullres__nnUNetTrainerV2__nnUNetPlansv2.1
nnUNet_ensemble -f "$OUT/2d" "$OUT/3d" -o "$OUT/Task005" -pp "$RESULTS_FOLDER/nnUNet/ensembles/Task005_Prostate/$ENSEMBLE/postprocessing.json"
nnUNet_evaluate_folder -ref "$TASKS/Task05_Prostate_labelsTs" -pred "$OUT/Task005" -l 1 2
