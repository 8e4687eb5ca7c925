"""SAM 2's mask decoder for point prompts: the same function as the sam2 package's, with less arithmetic and memory.

The sam2 package decodes every prompt separately and makes all four masks of each. Here

- everything that the prompts of an image share is computed once;
- attention between the N image tokens of a prompt and its T = 8 own tokens projects only the T tokens, because
  (x W_k) . q = x . (W_k^T q), and likewise for values and output: half the products, and no projected map is stored;
- predicted IoUs are computed first, and only the selected mask of points above the threshold is upscaled;
- maps are [n, N, C], channels last, so that every product and norm runs over contiguous memory.

Only the order of summation differs, so results differ in the last digits. ``method/plain.py`` calls the sam2 package's
decoder, and the property tests compare the two.
"""

from dataclasses import dataclass

import torch
from sam2.modeling.sam.transformer import Attention
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.nn import functional as F

#: Attention weights below this are set to 0. They vanish in any float32 sum with the others, but products with numbers
#: near 1e-38 (denormals) are tens of times slower on a CPU.
NEGLIGIBLE = 1e-30


@dataclass
class SharedMaps:
    """What all prompts of an image share: N image tokens of width C, attention with h heads of d channels.

    Attributes:
        tokens: [N, C], the image embedding plus SAM 2's embedding of "no mask prompt".
        position: [N, C], positional encoding of the image tokens.
        keys: [h, N, d], keys of the first attention from the prompts' tokens to the image.
        values: [h, N, d], values of the same attention.
        fine: [N, 4, C / 4], added by the first upscaling: high-resolution features and the bias.
        finer: [4 N, 4, C / 8], added by the second upscaling.
    """

    tokens: Tensor
    position: Tensor
    keys: Tensor
    values: Tensor
    fine: Tensor
    finer: Tensor


class MaskDecoder(nn.Module):
    """Decodes point prompts with the modules, and so the weights, of a SAM 2.

    Args:
        sam2: The network.
    """

    def __init__(self, sam2: SAM2Base) -> None:
        super().__init__()
        self.prompt_encoder = sam2.sam_prompt_encoder
        self.decoder = sam2.sam_mask_decoder

    def share(self, embedding: Tensor, high_res_features: list[Tensor]) -> SharedMaps:
        """Compute what the prompts of an image share.

        Args:
            embedding: [1, C, H, W], where N = H * W.
            high_res_features: [1, C / 8, 4 H, 4 W] and [1, C / 4, 2 H, 2 W].

        Returns:
            The shared maps, for any number of calls of :meth:`forward`.
        """
        attention = self.decoder.transformer.layers[0].cross_attn_token_to_image
        tokens = embedding[0].flatten(1).T + self.prompt_encoder.no_mask_embed.weight
        position = self.prompt_encoder.get_dense_pe()[0].flatten(1).T.contiguous()
        upscale_1, _, _, upscale_2, _ = self.decoder.output_upscaling
        finer, fine = (features[0] for features in high_res_features)
        height, width = embedding.shape[2:]
        fine = fine.view(-1, height, 2, width, 2).permute(1, 3, 2, 4, 0)
        finer = finer.view(-1, height, 2, 2, width, 2, 2).permute(1, 4, 2, 5, 3, 6, 0)
        return SharedMaps(
            tokens=tokens,
            position=position,
            keys=split_heads(attention.k_proj(tokens + position), attention.num_heads),
            values=split_heads(attention.v_proj(tokens), attention.num_heads),
            fine=fine.reshape(len(tokens), 4, -1) + upscale_1.bias,
            finer=finer.reshape(4 * len(tokens), 4, -1) + upscale_2.bias,
        )

    def forward(self, points: Tensor, shared: SharedMaps, pred_iou_thresh: float) -> tuple[Tensor, Tensor]:
        """Decode each point as one positive prompt, and select the best of its three multi-mask outputs.

        Args:
            points: float [n, 2], (x, y) in pixels of SAM 2's input.
            shared: From :meth:`share`.
            pred_iou_thresh: Points whose best predicted IoU is not above this yield no mask.

        Returns:
            Logits [m, 4 H, 4 W] of the m points above the threshold, in their order, and predicted IoUs [m].
        """
        decoder = self.decoder
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        prompts, _ = self.prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
        own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores:
            own.insert(0, decoder.obj_score_token.weight)
        own_tokens = torch.cat(own).expand(len(points), -1, -1)
        tokens, image = self.attend(torch.cat([own_tokens, prompts], dim=1), shared)

        iou_token = len(own) - 2
        predicted_iou, best = decoder.iou_prediction_head(tokens[:, iou_token])[:, 1:].max(dim=1)
        kept = (predicted_iou > pred_iou_thresh).nonzero()[:, 0]
        output = best[kept] + 1  # output 0 is the single-mask one
        if len(kept) < len(points):  # avoids a copy where all points are kept
            image = image[kept]
        logits = self.upscale(image, tokens[kept, iou_token + 1 + output], output, shared)
        return logits, predicted_iou[kept]

    def attend(self, prompts: Tensor, shared: SharedMaps) -> tuple[Tensor, Tensor]:
        """SAM 2's two-way transformer.

        Args:
            prompts: [n, T, C], the tokens of each prompt.
            shared: From :meth:`share`.

        Returns:
            The prompts' tokens [n, T, C] and the image tokens [n, N, C] after attention to each other.
        """
        transformer = self.decoder.transformer
        tokens, image, image_keys = prompts, shared.tokens, shared.tokens + shared.position
        for index, layer in enumerate(transformer.layers):
            if index == 0:
                tokens = layer.norm1(layer.self_attn(tokens, tokens, tokens))
                attended = self.first_token_to_image_attention(tokens + prompts, shared)
            else:
                positioned = tokens + prompts
                tokens = layer.norm1(tokens + layer.self_attn(positioned, positioned, tokens))
                attended = token_to_image_attention(
                    layer.cross_attn_token_to_image, tokens + prompts, image_keys, image
                )
            tokens = layer.norm2(tokens + attended)
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            image = image_to_token_attention(
                layer.cross_attn_image_to_token, image, image_keys, tokens + prompts, tokens
            )
            image = layer.norm4(image)
            image_keys = image + shared.position
        attended = token_to_image_attention(transformer.final_attn_token_to_image, tokens + prompts, image_keys, image)
        return transformer.norm_final_attn(tokens + attended), image

    def first_token_to_image_attention(self, queries: Tensor, shared: SharedMaps) -> Tensor:
        """The first layer's attention from tokens [n, T, C] to the image, whose keys and values all prompts share.

        Returns:
            [n, T, C].
        """
        attention = self.decoder.transformer.layers[0].cross_attn_token_to_image
        count, length, _ = queries.shape
        heads = split_heads(attention.q_proj(queries.flatten(0, 1)), attention.num_heads)  # [h, n T, d]
        attended = F.scaled_dot_product_attention(heads[None], shared.keys[None], shared.values[None])[0]
        return attention.out_proj(attended.transpose(0, 1).flatten(1)).unflatten(0, (count, length))

    def upscale(self, image: Tensor, mask_tokens: Tensor, output: Tensor, shared: SharedMaps) -> Tensor:
        """Upscale image tokens fourfold and compute one mask per prompt.

        Args:
            image: [m, N, C].
            mask_tokens: [m, C], the mask token of each prompt's selected output.
            output: int64 [m], the index of the selected output among the decoder's four.
            shared: From :meth:`share`.

        Returns:
            Logits [m, 4 H, 4 W].
        """
        decoder = self.decoder
        upscale_1, norm, activation_1, upscale_2, activation_2 = decoder.output_upscaling
        all_weights = torch.stack([mlp(mask_tokens) for mlp in decoder.output_hypernetworks_mlps])
        weights = all_weights[output, torch.arange(len(output), device=output.device)]  # [m, C / 8]
        maps = torch.matmul(image, upscaling_matrix(upscale_1)).add_(shared.fine.flatten(1))
        maps = maps.unflatten(2, (4, -1)).flatten(1, 2)  # [m, 4 N, C / 4]
        maps = activation_1(F.layer_norm(maps, maps.shape[-1:], norm.weight, norm.bias, norm.eps))
        maps = activation_2(torch.matmul(maps, upscaling_matrix(upscale_2)).add_(shared.finer.flatten(1)))
        height, width = self.prompt_encoder.image_embedding_size
        maps = maps.unflatten(2, (4, -1)).flatten(1, 2)  # [m, 16 N, C / 8]
        logits = (maps @ weights[..., None]).view(-1, height, width, 2, 2, 2, 2)
        return logits.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * height, 4 * width)


def split_heads(maps: Tensor, heads: int) -> Tensor:
    """Reshape [..., L, h * d] to [..., h, L, d]."""
    return maps.unflatten(-1, (heads, -1)).transpose(-3, -2)


def upscaling_matrix(convolution: nn.ConvTranspose2d) -> Tensor:
    """A 2x2 transposed convolution of stride 2 as a matrix [C_in, 4 * C_out] with columns (row, column, channel)."""
    return convolution.weight.permute(0, 2, 3, 1).flatten(1)


def token_to_image_attention(attention: Attention, queries: Tensor, image_keys: Tensor, image: Tensor) -> Tensor:
    """Attention from tokens to image tokens, with the image tokens left unprojected.

    The key projection's bias adds the same amount to all scores of a query, so softmax cancels it. The weights sum to
    1, so the value projection's bias is added once.

    Args:
        attention: The module whose weights are used.
        queries: [n, T, C], the prompts' tokens.
        image_keys: [n, N, C] or [N, C], image tokens with their positions.
        image: [n, N, C] or [N, C], image tokens.

    Returns:
        [n, T, C].
    """
    heads = attention.num_heads
    key_matrix = attention.k_proj.weight.unflatten(0, (heads, -1))  # [h, d, C]
    value_matrix = attention.v_proj.weight.unflatten(0, (heads, -1))
    queries = split_heads(attention.q_proj(queries), heads)  # [n, h, T, d]
    folded = (queries @ key_matrix) * queries.shape[-1] ** -0.5  # [n, h, T, C]
    weights = attention_weights(folded.flatten(1, 2) @ image_keys.transpose(1, 2), dim=-1)
    attended = (weights @ image).unflatten(1, (heads, -1)) @ value_matrix.transpose(1, 2)  # [n, h, T, d]
    return attention.out_proj(attended.transpose(1, 2).flatten(2) + attention.v_proj.bias)


def image_to_token_attention(
    attention: Attention, image: Tensor, image_keys: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Attention from image tokens to tokens, added to the image tokens.

    Args:
        attention: The module whose weights are used.
        image: [n, N, C] or [N, C], image tokens.
        image_keys: [n, N, C] or [N, C], image tokens with their positions: the queries here.
        keys: [n, T, C], the prompts' tokens with their positions.
        values: [n, T, C], the prompts' tokens.

    Returns:
        [n, N, C].
    """
    heads = attention.num_heads
    query_matrix = attention.q_proj.weight.unflatten(0, (heads, -1))  # [h, d, C]
    output_matrix = attention.out_proj.weight.unflatten(1, (heads, -1)).permute(1, 2, 0)  # [h, d, C]
    keys = split_heads(attention.k_proj(keys), heads) * query_matrix.shape[1] ** -0.5  # [n, h, T, d]
    values = split_heads(attention.v_proj(values), heads)
    folded = (keys @ query_matrix).flatten(1, 2)  # [n, h T, C]
    bias = (keys @ attention.q_proj.bias.view(heads, -1, 1)).flatten(1)[..., None]  # [n, h T, 1]
    scores = torch.baddbmm(bias, folded, image_keys.expand(len(keys), -1, -1).transpose(1, 2))
    weights = attention_weights(scores.unflatten(1, (heads, -1)), dim=2).flatten(1, 2)  # [n, h T, N]
    # Each head's weights sum to 1, so adding the output bias divided by the number of heads adds it once.
    updates = (values @ output_matrix + attention.out_proj.bias / heads).flatten(1, 2)  # [n, h T, C]
    return torch.baddbmm(image.expand(len(keys), -1, -1), weights.transpose(1, 2), updates)


def attention_weights(scores: Tensor, dim: int) -> Tensor:
    """Softmax over ``dim``, with negligible weights set to 0."""
    return F.threshold(scores.softmax(dim), NEGLIGIBLE, 0.0, inplace=True)
