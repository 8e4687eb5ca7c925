"""SAM 2's mask decoder for point prompts: the package's function, with far less arithmetic and memory traffic.

The sam2 package decodes every prompt as if it were alone and makes all four masks of each. Here

- what the prompts of an image share is computed once;
- attention between the N image tokens of a prompt and its T = 8 own tokens projects the T tokens only: x W_k . q is
  x . (W_k^T q), and likewise for the values and the output, which halves the products and keeps no projected map;
- the predicted IoUs come first, and only the chosen mask of points over the threshold is upscaled;
- maps are [n, N, C], channels last, so that every product and norm runs over contiguous memory.

Only the order of sums differs, and so the last digits.
"""

from dataclasses import dataclass

import torch
from sam2.modeling.sam.transformer import Attention
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.nn import functional as F

#: Weights of attention under this are taken as 0. They are lost in any float32 sum with the others, but where they come
#: near 1e-38 a CPU multiplies them tens of times as slowly.
NEGLIGIBLE = 1e-30


@dataclass
class SharedMaps:
    """What all prompts of an image share; N image tokens, C wide; h heads of d channels.

    Attributes:
        tokens: [N, C], the image embedding plus SAM 2's embedding of "no mask prompt".
        position: [N, C], positional encoding of the image tokens.
        keys, values: [h, N, d], of the first attention from the prompts' tokens to the image.
        fine: [N, 4, C / 4], what the first upscaling adds: high-resolution features and its bias.
        finer: [4 N, 4, C / 8], what the second adds.
    """

    tokens: Tensor
    position: Tensor
    keys: Tensor
    values: Tensor
    fine: Tensor
    finer: Tensor


class MaskDecoder(nn.Module):
    """Decodes point prompts with the weights of a SAM 2, whose modules it uses where they are.

    Args:
        sam2: the network.
    """

    def __init__(self, sam2: SAM2Base) -> None:
        super().__init__()
        self.prompt_encoder = sam2.sam_prompt_encoder
        self.decoder = sam2.sam_mask_decoder

    def share(self, embedding: Tensor, high_res_features: list[Tensor]) -> SharedMaps:
        """Compute once an image what its prompts share.

        Args:
            embedding: [1, C, H, W], N = H * W.
            high_res_features: [1, C / 8, 4 H, 4 W] and [1, C / 4, 2 H, 2 W].
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

    def forward(self, points: Tensor, shared: SharedMaps, iou_thr: float) -> tuple[Tensor, Tensor]:
        """Decode points, each as one positive prompt, to the best of their three multi-mask outputs.

        Args:
            points: float [n, 2] (x, y) in pixels of SAM 2's input.
            shared: from :meth:`share`.
            iou_thr: a point whose best predicted IoU is not above this gives no mask.

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
        kept = (predicted_iou > iou_thr).nonzero()[:, 0]
        output = best[kept] + 1  # output 0 is the single-mask one
        if len(kept) < len(points):  # or there is nothing to copy
            image = image[kept]
        logits = self.upscale(image, tokens[kept, iou_token + 1 + output], output, shared)
        return logits, predicted_iou[kept]

    def attend(self, prompts: Tensor, shared: SharedMaps) -> tuple[Tensor, Tensor]:
        """The two-way transformer: tokens [n, T, C] of each prompt to tokens [n, T, C] and image tokens [n, N, C]."""
        transformer = self.decoder.transformer
        tokens, image, image_keys = prompts, shared.tokens, shared.tokens + shared.position
        for index, layer in enumerate(transformer.layers):
            if index == 0:
                tokens = layer.norm1(layer.self_attn(tokens, tokens, tokens))
                seen = self.first_look(tokens + prompts, shared)
            else:
                positioned = tokens + prompts
                tokens = layer.norm1(tokens + layer.self_attn(positioned, positioned, tokens))
                seen = look(layer.cross_attn_token_to_image, tokens + prompts, image_keys, image)
            tokens = layer.norm2(tokens + seen)
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            image = tell(layer.cross_attn_image_to_token, image, image_keys, tokens + prompts, tokens)
            image = layer.norm4(image)
            image_keys = image + shared.position
        seen = look(transformer.final_attn_token_to_image, tokens + prompts, image_keys, image)
        return transformer.norm_final_attn(tokens + seen), image

    def first_look(self, queries: Tensor, shared: SharedMaps) -> Tensor:
        """The first layer's attention to the image, whose keys and values all prompts share: [n, T, C]."""
        attention = self.decoder.transformer.layers[0].cross_attn_token_to_image
        count, length, _ = queries.shape
        heads = split_heads(attention.q_proj(queries.flatten(0, 1)), attention.num_heads)  # [h, n T, d]
        seen = F.scaled_dot_product_attention(heads[None], shared.keys[None], shared.values[None])[0]
        return attention.out_proj(seen.transpose(0, 1).flatten(1)).unflatten(0, (count, length))

    def upscale(self, image: Tensor, mask_tokens: Tensor, output: Tensor, shared: SharedMaps) -> Tensor:
        """Upscale image tokens four times and read out one mask each.

        Args:
            image: [m, N, C].
            mask_tokens: [m, C], the chosen output's.
            output: int64 [m], which of the decoder's outputs it is.

        Returns:
            Logits [m, 4 H, 4 W].
        """
        decoder = self.decoder
        upscale_1, norm, activation_1, upscale_2, activation_2 = decoder.output_upscaling
        everything = torch.stack([mlp(mask_tokens) for mlp in decoder.output_hypernetworks_mlps])
        weights = everything[output, torch.arange(len(output), device=output.device)]  # [m, C / 8]
        maps = torch.matmul(image, upscaling_matrix(upscale_1)).add_(shared.fine.flatten(1))
        maps = maps.unflatten(2, (4, -1)).flatten(1, 2)  # [m, 4 N, C / 4]
        maps = activation_1(F.layer_norm(maps, maps.shape[-1:], norm.weight, norm.bias, norm.eps))
        maps = activation_2(torch.matmul(maps, upscaling_matrix(upscale_2)).add_(shared.finer.flatten(1)))
        height, width = self.prompt_encoder.image_embedding_size
        maps = maps.unflatten(2, (4, -1)).flatten(1, 2)  # [m, 16 N, C / 8]
        logits = (maps @ weights[..., None]).view(-1, height, width, 2, 2, 2, 2)
        return logits.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * height, 4 * width)


def split_heads(maps: Tensor, heads: int) -> Tensor:
    """[..., L, h * d] to [..., h, L, d]."""
    return maps.unflatten(-1, (heads, -1)).transpose(-3, -2)


def upscaling_matrix(convolution: nn.ConvTranspose2d) -> Tensor:
    """A 2x2 transposed convolution of stride 2 as a matrix: [C_in, 4 * C_out], columns (row, column, channel)."""
    return convolution.weight.permute(0, 2, 3, 1).flatten(1)


def look(attention: Attention, queries: Tensor, image_keys: Tensor, image: Tensor) -> Tensor:
    """Attention of tokens [n, T, C] to image tokens [n, N, C]: [n, T, C].

    The key's bias adds the same to all scores of a query, so softmax drops it; weights sum to 1, so the value's stays.
    """
    heads = attention.num_heads
    key_matrix = attention.k_proj.weight.unflatten(0, (heads, -1))  # [h, d, C]
    value_matrix = attention.v_proj.weight.unflatten(0, (heads, -1))
    queries = split_heads(attention.q_proj(queries), heads)  # [n, h, T, d]
    folded = (queries @ key_matrix) * queries.shape[-1] ** -0.5  # [n, h, T, C]
    weights = attention_weights(folded.flatten(1, 2) @ image_keys.transpose(1, 2), dim=-1)
    seen = (weights @ image).unflatten(1, (heads, -1)) @ value_matrix.transpose(1, 2)  # [n, h, T, d]
    return attention.out_proj(seen.transpose(1, 2).flatten(2) + attention.v_proj.bias)


def tell(attention: Attention, image: Tensor, image_keys: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of image tokens [n, N, C] or [N, C] to tokens [n, T, C], added to ``image``: [n, N, C]."""
    heads = attention.num_heads
    query_matrix = attention.q_proj.weight.unflatten(0, (heads, -1))  # [h, d, C]
    output_matrix = attention.out_proj.weight.unflatten(1, (heads, -1)).permute(1, 2, 0)  # [h, d, C]
    keys = split_heads(attention.k_proj(keys), heads) * query_matrix.shape[1] ** -0.5  # [n, h, T, d]
    values = split_heads(attention.v_proj(values), heads)
    folded = (keys @ query_matrix).flatten(1, 2)  # [n, h T, C]
    bias = (keys @ attention.q_proj.bias.view(heads, -1, 1)).flatten(1)[..., None]  # [n, h T, 1]
    scores = torch.baddbmm(bias, folded, image_keys.expand(len(keys), -1, -1).transpose(1, 2))
    weights = attention_weights(scores.unflatten(1, (heads, -1)), dim=2).flatten(1, 2)  # [n, h T, N]
    # Each head's weights sum to 1, so that the output's bias, shared among the heads, is added once.
    told = (values @ output_matrix + attention.out_proj.bias / heads).flatten(1, 2)  # [n, h T, C]
    return torch.baddbmm(image.expand(len(keys), -1, -1), weights.transpose(1, 2), told)


def attention_weights(scores: Tensor, dim: int) -> Tensor:
    """The weights that attention makes of scores."""
    return F.threshold(scores.softmax(dim), NEGLIGIBLE, 0.0, inplace=True)
