"""SAM 2's mask decoder for points and boxes: the same function as the sam2 package's, with less arithmetic and memory.

The sam2 package decodes every prompt separately and makes all four masks of each. Here

- everything that the prompts of an image share is computed once, and no prompt has image tokens of its own
  (``two_way_transformer.py``);
- predicted IoUs are computed first, and only the selected mask of points above the threshold is upscaled;
- maps are [N, C], channels last, so that every product and norm runs over contiguous memory, and a CPU upscales a few
  image tokens at a time, so that their maps stay in its cache.

Only the order of summation differs, so results differ in the last digits. ``method/plain.py`` calls the sam2 package's
decoder, and the property tests compare the two.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.nn import functional as F

from no_time_to_train.method.fast.two_way_transformer import ImageTokens, SharedAttention, SharedTransformer

#: Image tokens, of all prompts together, that a CPU attends to at once and that it upscales at once: their maps (2 MB
#: and 1 MB) stay in its cache.
CPU_TOKENS, CPU_UPSCALED_TOKENS = 4096, 512


@dataclass
class SharedMaps:
    """What all prompts of an image share: N = H W image tokens of width C.

    Attributes:
        attention: What they share in the transformer.
        base: [N, C], the base of the image tokens, multiplied with the first upscaling.
        fine: [N, C], added by the first upscaling: the offset, high-resolution features and the bias.
        finer: [4 N, C / 2], added by the second upscaling.
    """

    attention: SharedAttention
    base: Tensor
    fine: Tensor
    finer: Tensor


class MaskDecoder(nn.Module):
    """Decodes point and box prompts with the modules, and so the weights, of a SAM 2.

    Attributes:
        cpu_prompts: Prompts that a CPU decodes at once.
        static: Whether ``torch.compile`` translates the decoder for batches of a few sizes, on a GPU as CUDA graphs.
    """

    def __init__(self, sam2: SAM2Base) -> None:
        super().__init__()
        self.prompt_encoder = sam2.sam_prompt_encoder
        self.decoder = sam2.sam_mask_decoder
        self.transformer = SharedTransformer(self.decoder.transformer)
        height, width = self.prompt_encoder.image_embedding_size
        self.cpu_prompts = max(CPU_TOKENS // (height * width), 1)
        self.static = False
        self.compiled: Callable[[Tensor, SharedMaps], tuple[Tensor, Tensor]] | None = None

    def share(self, embedding: Tensor, high_res_features: list[Tensor]) -> SharedMaps:
        """Compute what the prompts of an image share, for any number of calls of :meth:`forward`.

        Args:
            embedding: [1, C, H, W], where N = H * W.
            high_res_features: [1, C / 8, 4 H, 4 W] and [1, C / 4, 2 H, 2 W].
        """
        tokens = embedding[0].flatten(1).T + self.prompt_encoder.no_mask_embed.weight
        position = self.prompt_encoder.get_dense_pe()[0].flatten(1).T.contiguous()
        attention = self.transformer.share(tokens, position)
        upscale_1, _, _, upscale_2, _ = self.decoder.output_upscaling
        matrix = upscaling_matrix(upscale_1)
        finer, fine = (features[0] for features in high_res_features)
        height, width = embedding.shape[2:]
        fine = fine.view(-1, height, 2, width, 2).permute(1, 3, 2, 4, 0).reshape(len(tokens), 4, -1)
        finer = finer.view(-1, height, 2, 2, width, 2, 2).permute(1, 4, 2, 5, 3, 6, 0).reshape(4 * len(tokens), 4, -1)
        return SharedMaps(
            attention=attention,
            base=attention.base @ matrix,
            fine=(fine + upscale_1.bias).flatten(1) + attention.offset @ matrix,
            finer=(finer + upscale_2.bias).flatten(1),
        )

    def forward(
        self, points: Tensor, shared: SharedMaps, pred_iou_thresh: float, multimask: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Decode each point as one positive prompt, and select the best of its three multi-mask outputs.

        Args:
            points: float [n, 2], (x, y) in pixels of SAM 2's input; or boxes, float [n, 4], xyxy.
            pred_iou_thresh: Points whose best predicted IoU is not above this yield no mask.
            multimask: Whether the three outputs are asked for, or the single mask, as of ``multimask_output`` in SAM 2.

        Returns:
            Logits [m, 4 H, 4 W] of the m points above the threshold, in their order, and predicted IoUs [m].
        """
        if self.static or not multimask:
            logits, predicted_iou = (self.run_compiled if multimask else self.decode_single)(points, shared)
            kept = kept_points(predicted_iou, pred_iou_thresh)
            return logits[kept], predicted_iou[kept]  # copies: a CUDA graph uses its memory again for the next batch
        image, mask_tokens, output, predicted_iou = self.attend(self.prompt_tokens(points), shared)
        kept = kept_points(predicted_iou, pred_iou_thresh)
        if len(kept) < len(points):  # avoids a copy where all points are kept
            image = ImageTokens(image.scale[kept], image.weights[kept], image.rows[kept], [])
        return self.upscale(image, mask_tokens[kept], output[kept], shared), predicted_iou[kept]

    def run_compiled(self, points: Tensor, shared: SharedMaps) -> tuple[Tensor, Tensor]:
        """:meth:`decode_all`, compiled. Batches are padded to a power of two, so that few sizes are translated."""
        if self.compiled is None:  # now, because the network is on its device by the first call
            mode = "reduce-overhead" if points.is_cuda else None
            self.compiled = torch.compile(self.decode_all, dynamic=False, mode=mode)
        count = len(points)
        padding = points[-1:].expand((1 << (count - 1).bit_length()) - count, -1)
        if points.is_cuda:
            torch.compiler.cudagraph_mark_step_begin()
        logits, predicted_iou = self.compiled(self.prompt_tokens(torch.cat([points, padding])), shared)
        return logits[:count], predicted_iou[:count]

    def decode_all(self, prompts: Tensor, shared: SharedMaps) -> tuple[Tensor, Tensor]:
        """Make the masks of all prompts [n, T, C], so that all shapes are known in advance.

        Returns:
            Logits [n, 4 H, 4 W] and predicted IoUs [n].
        """
        image, mask_tokens, output, predicted_iou = self.attend(prompts, shared)
        return self.upscale(image, mask_tokens, output, shared), predicted_iou

    def decode_single(self, points: Tensor, shared: SharedMaps) -> tuple[Tensor, Tensor]:
        """The single-mask output of each prompt; where it is not stable, the best of the others, as SAM 2 does.

        Returns:
            Logits [n, 4 H, 4 W] and predicted IoUs [n].
        """
        decoder = self.decoder
        tokens, image = self.transformer(self.prompt_tokens(points), shared.attention)
        mask_tokens, output, predicted_iou = self.select(tokens, slice(0, 1))
        logits = self.upscale(image, mask_tokens, output, shared)
        if decoder.dynamic_multimask_via_stability:
            stable = decoder._get_stability_scores(logits[:, None])[:, 0] >= decoder.dynamic_multimask_stability_thresh
            mask_tokens, output, best_iou = self.select(tokens, slice(1, None))
            logits = torch.where(stable[:, None, None], logits, self.upscale(image, mask_tokens, output, shared))
            predicted_iou = predicted_iou.where(stable, best_iou)
        return logits, predicted_iou

    def prompt_tokens(self, points: Tensor) -> Tensor:
        """The tokens [n, T, C] of points [n, 2], each as one positive prompt, or of boxes [n, 4]."""
        decoder = self.decoder
        corners = points.shape[1] == 4  # which SAM 2 knows by the labels 2 and 3
        labels = torch.tensor([2, 3] if corners else [1], dtype=torch.int, device=points.device)
        places = points.view(len(points), -1, 2), labels.expand(len(points), -1)
        prompts, _ = self.prompt_encoder(points=places, boxes=None, masks=None)
        own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores:
            own.insert(0, decoder.obj_score_token.weight)
        return torch.cat([torch.cat(own).expand(len(points), -1, -1), prompts], dim=1)

    def attend(self, prompts: Tensor, shared: SharedMaps) -> tuple[ImageTokens, Tensor, Tensor, Tensor]:
        """Run the transformer on prompts [n, T, C], and select the best of the three multi-mask outputs of each.

        Returns:
            The image tokens; of the selected output the mask token [n, C] and index int64 [n]; its predicted IoU [n].
        """
        tokens, image = self.transformer(prompts, shared.attention)
        return image, *self.select(tokens, slice(1, None))  # output 0 is the single-mask one

    def select(self, tokens: Tensor, outputs: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The output of the best predicted IoU among some; see :meth:`attend`."""
        iou_token = int(self.decoder.pred_obj_scores)
        predicted_iou, best = self.decoder.iou_prediction_head(tokens[:, iou_token])[:, outputs].max(dim=1)
        output = best + outputs.start
        every = torch.arange(len(output), device=output.device)
        return tokens[every, iou_token + 1 + output], output, predicted_iou

    def upscale(self, image: ImageTokens, mask_tokens: Tensor, output: Tensor, shared: SharedMaps) -> Tensor:
        """Upscale the image tokens of m prompts fourfold, and compute one mask per prompt: logits [m, 4 H, 4 W].

        Args:
            mask_tokens: [m, C], the mask token of each prompt's selected output.
            output: int64 [m], the index of the selected output among the decoder's four.
        """
        decoder = self.decoder
        upscale_1, norm, activation_1, upscale_2, activation_2 = decoder.output_upscaling
        all_weights = torch.stack([mlp(mask_tokens) for mlp in decoder.output_hypernetworks_mlps])
        mask_weights = all_weights[output, torch.arange(len(output), device=output.device)][..., None]  # [m, C / 8, 1]
        rows = image.rows @ upscaling_matrix(upscale_1)  # [m, r, C]
        matrix = upscaling_matrix(upscale_2)
        height, width = self.prompt_encoder.image_embedding_size
        at_once = max(CPU_UPSCALED_TOKENS // max(len(rows), 1), 1) if rows.device.type == "cpu" else height * width
        logits = []
        for start in range(0, height * width, at_once):
            block, block_of_4 = slice(start, start + at_once), slice(4 * start, 4 * (start + at_once))
            maps = torch.addcmul(shared.fine[block], shared.base[block], image.scale[:, 0, block, None])
            maps = torch.baddbmm(maps, image.weights[:, :, block].transpose(1, 2), rows)
            maps = maps.unflatten(2, (4, -1)).flatten(1, 2)  # [m, 4 B, C / 4]
            maps = activation_1(F.layer_norm(maps, maps.shape[-1:], norm.weight, norm.bias, norm.eps))
            maps = activation_2(torch.matmul(maps, matrix).add_(shared.finer[block_of_4]))
            logits.append(maps.unflatten(2, (4, -1)).flatten(1, 2) @ mask_weights)  # [m, 16 B, 1]
        maps = torch.cat(logits, dim=1).view(-1, height, width, 2, 2, 2, 2)
        return maps.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * height, 4 * width)


def kept_points(predicted_iou: Tensor, pred_iou_thresh: float) -> Tensor:
    """The points above a threshold, int64 [m], and those of NaN, which ``MaskProposer`` reports."""
    return (~(predicted_iou <= pred_iou_thresh)).nonzero()[:, 0]


def upscaling_matrix(convolution: nn.ConvTranspose2d) -> Tensor:
    """A 2x2 transposed convolution of stride 2 as a matrix [C_in, 4 * C_out] with columns (row, column, channel)."""
    return convolution.weight.permute(0, 2, 3, 1).flatten(1)
