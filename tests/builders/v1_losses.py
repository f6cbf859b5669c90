"""What the losses of v1's trainers are here, and their values for the logits of the tests."""

V1 = [  # loss of v1's trainer; component and settings; v1's value with batch Dice, with sample Dice
    ("V2", "dice_ce", {}, 2.105734, 2.125410),
    ("Loss_CE", "ce", {}, 2.332403, 2.332403),
    ("Loss_CEGDL", "dice_ce", {"overlap": "generalised_dice"}, 2.117641, 2.138882),
    ("Loss_Dice", "dice", {}, -0.226668, -0.206993),
    ("Loss_DicewithBG", "dice", {"background": True}, -0.283406, -0.267413),
    ("Loss_Dice_squared", "dice", {"overlap": "squared_dice"}, -0.283483, -0.259024),
    ("Loss_DiceCE_noSmooth", "dice_ce", {"smooth": 0.0}, 2.105734, 2.125410),
    ("Loss_DiceTopK10", "dice_topk", {}, 5.803173, 5.822848),
    ("Loss_TopK10", "topk", {}, 6.029841, 6.029841),
    (
        "Loss_MCC",
        "dice",
        {"overlap": "mcc", "smooth": 0.0, "background": True},
        -0.019169,
        -0.022916,
    ),
    ("Loss_MCCnoBG", "dice", {"overlap": "mcc", "smooth": 0.0}, -0.017786, -0.020424),
    ("SegLoss_Focal", "focal", {"focal_alpha": 0.5, "focal_smooth": 1e-5}, 1.002365, 1.002365),
    ("BraTSRegions", "dice_bce", {}, 0.741429, 0.753667),
    ("BraTSRegions_Dice", "dice", {"smooth": 0.0}, -0.422740, -0.410502),
]
