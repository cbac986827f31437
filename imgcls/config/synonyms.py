"""Synonyms of the keys of an experiment, as other tools have them: for hints in errors, never accepted."""

OTHER_NAMES = {
    "data.source": "dataset dataset_name data_source",
    "data.path": "root data_dir data_path data_root dir directory folder image_dir image_folder img_dir train_dir",
    "data.image_size": "img_size input_size size resolution res imgsz resize crop_size img_sz image_shape",
    "data.channels": "in_channels in_chans num_channels n_channels",
    "data.val_fraction": "val_split val_size val_ratio val_pct validation_split validation_fraction val_frac valid_pct",
    "data.test_fraction": "test_split test_size test_ratio test_pct test_frac",
    "data.folds": "num_folds n_folds kfold k_fold k_folds n_splits cv cross_validation",
    "data.groups": "group group_by patients",
    "data.test_views": "tta test_time_augmentation",
    "model.name": "arch architecture backbone net network model_name encoder model",
    "model.depth": "layers num_layers n_layers",
    "model.width": "base_width num_filters filters",
    "model.weights": "pretrained pretrained_weights checkpoint ckpt init_checkpoint init_weights",
    "model.dropout": "drop_rate dropout_rate dropout_prob p_drop drop",
    "augment.random_resized_crop": "rrc random_crop crop crop_scale scale",
    "augment.aspect_ratio": "ratio",
    "augment.horizontal_flip": "hflip flip flip_lr fliplr random_horizontal_flip mirror",
    "augment.vertical_flip": "vflip flip_ud flipud random_vertical_flip",
    "augment.rotation": "degrees rotate random_rotation max_rotate",
    "augment.shift": "translate translation",
    "augment.cutout": "random_erasing erasing reprob",
    "augment.mixup": "mixup_alpha",
    "augment.cutmix": "cutmix_alpha",
    "train.epochs": "num_epochs n_epochs max_epochs num_train_epochs epoch n_epoch nb_epochs total_epochs",
    "train.batch_size": "bs batch batchsize train_batch_size mini_batch minibatch minibatch_size "
    "per_device_train_batch_size per_device_batch_size",
    "train.eval_batch_size": "val_batch_size test_batch_size per_device_eval_batch_size",
    "train.lr": "learning_rate learn_rate base_lr max_lr peak_lr init_lr initial_lr lr0 lr_max eta step_size",
    "train.optimizer": "optim optimiser opt",
    "train.backbone_lr_scale": "backbone_lr backbone_lr_mult backbone_multiplier encoder_lr_scale lr_mult",
    "train.layer_decay": "layerwise_lr_decay layer_wise_lr_decay layer_lr_decay llrd lr_decay",
    "train.freeze_epochs": "freeze freeze_backbone freeze_encoder frozen_epochs unfreeze_epoch",
    "train.warmup_epochs": "warmup warm_up warmup_epoch num_warmup_epochs warm_up_epochs warmup_steps num_warmup_steps",
    "train.weight_decay": "wd decay l2 l2_reg l2_penalty regularization",
    "train.label_smoothing": "smoothing label_smooth ls",
    "train.class_weights": "class_weight balanced weighted_loss class_balance pos_weight",
    "train.sampling": "oversampling oversample weighted_sampler balanced_sampling class_balanced_sampling",
    "train.loss": "criterion loss_fn loss_function",
    "train.focal_gamma": "gamma fl_gamma",
    "train.logit_adjustment": "tau logit_adjust la_tau",
    "train.head_only": "linear_probe linear_probing frozen_backbone feature_extract",
    "train.ema_decay": "ema model_ema model_ema_decay",
    "train.average_epochs": "swa soup model_soup avg_checkpoints",
    "train.patience": "early_stopping early_stop early_stopping_patience es_patience",
    "train.seed": "random_seed random_state manual_seed rng_seed",
    "train.device": "gpu gpus cuda accelerator",
    "train.threads": "num_threads n_threads",
    "train.precision": "amp fp16 bf16 mixed_precision dtype autocast",
    "search.trials": "n_trials num_trials max_trials num_samples",
    "search.timeout": "max_time time_limit time_budget",
    "search.workers": "n_jobs jobs",
    "search.metric": "objective monitor target metric_for_best_model",
    "search.space": "search_space hyperparameters",
}
"""Synonyms by dotted key, separated by spaces."""


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


_KEYS = {_plain(word): key for key, words in OTHER_NAMES.items() for word in words.split()}


def key_called(name: str) -> str:
    """The key of the synonym `name`, in any case, with any hyphens or underscores; empty if it is not a synonym."""
    return _KEYS.get(_plain(name), "")
