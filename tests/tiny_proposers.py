"""Tiny networks with random weights of the classes that propose: folders as ``save_pretrained`` writes them."""

from pathlib import Path
from typing import Any

#: The numbers that BERT's vocabulary has for the words which Grounding DINO treats differently.
BERT_WORDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029, "object": 1030}

#: A transformer of one layer, as text towers have it.
LAYER = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def save_owlv2(folder: Path) -> None:
    import transformers as hf

    config = hf.Owlv2Config(
        vision_config={**LAYER, "image_size": 64, "patch_size": 8},
        text_config={**LAYER, "vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2},
        projection_dim=16,
    )
    network = hf.Owlv2ForObjectDetection(config).requires_grad_(False)
    network.box_head.dense2.weight.mul_(0.001)  # so that the boxes are near their patches
    network.save_pretrained(folder)
    hf.Owlv2ImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


def save_mm_grounding_dino(folder: Path) -> None:
    import transformers as hf

    backbone = hf.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 1], window_size=2, out_indices=[2, 3]
    )
    config = hf.MMGroundingDinoConfig(
        backbone_config=backbone,
        text_config=hf.BertConfig(**LAYER, vocab_size=1031, max_position_embeddings=32),
        d_model=32,
        num_queries=12,
        num_feature_levels=2,
        max_text_len=32,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_bbox_embed_share=False,
        decoder_cls_embed_share=False,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
    )
    hf.MMGroundingDinoForObjectDetection(config).save_pretrained(folder)
    words = {number: f"[unused{number}]" for number in range(1031)} | {n: word for word, n in BERT_WORDS.items()}
    tokenizer = hf.BertTokenizer(vocab={word: number for number, word in words.items()})
    images = hf.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    hf.GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)


def save_sam3(folder: Path) -> None:
    import transformers as hf

    small: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2}
    layers: dict[str, Any] = {**small, "intermediate_size": 16, "num_layers": 1}
    config = hf.Sam3Config(
        vision_config=hf.Sam3VisionConfig(
            backbone_config=hf.Sam3ViTConfig(
                **LAYER, image_size=56, pretrain_image_size=56, window_size=2, global_attn_indexes=[0]
            ),
            fpn_hidden_size=16,
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        ),
        text_config=hf.CLIPTextConfig(**LAYER, vocab_size=600, projection_dim=16, max_position_embeddings=32),
        geometry_encoder_config=hf.Sam3GeometryEncoderConfig(**layers),
        detr_encoder_config=hf.Sam3DETREncoderConfig(**layers),
        detr_decoder_config=hf.Sam3DETRDecoderConfig(**layers, num_queries=10),
        mask_decoder_config=hf.Sam3MaskDecoderConfig(**small, num_upsampling_stages=2),
    )
    hf.Sam3Model(config).save_pretrained(folder)
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = hf.CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    image_processor = getattr(hf, "Sam3ImageProcessor", None) or hf.Sam3ImageProcessorFast  # its name in 5.0
    hf.Sam3Processor(image_processor(size={"height": 56, "width": 56}), tokenizer).save_pretrained(folder)
