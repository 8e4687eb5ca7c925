"""``test``: run one stage of the method, as the paper's commands do."""


def test(argv: list[str]) -> None:
    """Run one stage of the method: fill_memory, postprocess_memory, vis_memory or test.

    usage: no-time-to-train test --config FILE [--model.test_mode MODE] [OPTION VALUE ...]

    The three stages, one after the other:

      no-time-to-train test --config configs/custom_sam2l.yaml --model.test_mode fill_memory --out_path memory.ckpt
      no-time-to-train test --config configs/custom_sam2l.yaml --model.test_mode postprocess_memory \\
        --ckpt_path memory.ckpt --out_path memory_postprocessed.ckpt --trainer.devices 1
      no-time-to-train test --config configs/custom_sam2l.yaml --model.test_mode test \\
        --ckpt_path memory_postprocessed.ckpt --export_result results.json

    options of a run:
      --config FILE              Configuration; may be given several times, and later files override earlier ones.
      --ckpt_path FILE           Memory to read (postprocess_memory, vis_memory, test).
      --out_path FILE            Memory to write (fill_memory, postprocess_memory), or folder (vis_memory).
      --export_result FILE       COCO results to write (test). Default: results.json in the logger's folder.
      --n_shot N                 Sets memory_bank_cfg.length and memory_length.
      --coco_semantic_split K    Sets both class splits to fold K of COCO-20i, and the protocol to semantic.
      --seed N                   Seeds everything; recorded in metrics.json.
      --on_bad_image stop|skip   What to do with a target image that cannot be read. Default: stop.
      --max_bad N                Stop if more than N images are skipped.

    configuration:
      --model.KEY VALUE          Any key of docs/configuration.md, also written --model.init_args.KEY VALUE.
      --trainer.KEY VALUE        Any option of Lightning's Trainer, such as --trainer.devices 4.
      --print_config             Print the whole configuration and exit.
    """
    if "-h" in argv or "--help" in argv:
        import inspect

        print(inspect.getdoc(test))
        return
    from no_time_to_train.commands.stage_cli import run_stage

    run_stage(argv)
