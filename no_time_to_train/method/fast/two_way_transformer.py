"""SAM 2's two-way transformer for many prompts of one image, without the image tokens of any prompt.

In each of the two layers, the N = 4,096 image tokens of a prompt read from its T = 8 own tokens with h = 8 heads: a map
of rank h T = 64 is added to them, and the sum is normalized. A prompt's image tokens therefore always have the form

    x = scale * base + weights^T rows + offset

with ``base`` [N, C] and ``offset`` [C] the same for all prompts, ``scale`` [N], ``weights`` [r, N] and ``rows`` [r, C].
They are only ever multiplied with a matrix or normalized. A product is

    x R = scale * (base R) + weights^T (rows R) + offset R,

where ``base R`` is computed once per image, and the variance that a norm needs follows from inner products of the rows
and of the base. So [N, C] maps are neither stored nor multiplied, which halves the arithmetic of the decoder.
"""

from dataclasses import dataclass

import torch
from sam2.modeling.sam.transformer import Attention, TwoWayAttentionBlock, TwoWayTransformer
from torch import Tensor, nn
from torch.nn import functional as F

#: Attention weights below this are set to 0. They vanish in any float32 sum with the others, but products with numbers
#: near 1e-38 (denormals) are tens of times slower on a CPU.
NEGLIGIBLE = 1e-30


@dataclass
class ImageTokens:
    """The image tokens of n prompts after a norm: ``scale * base + weights^T rows + offset``, see the module.

    Attributes:
        scale: [n, 1, N].
        weights: [n, r, N].
        rows: [n, r, C].
        values: For each attention that has added rows, [n, h, T, d]: the values that it read from the prompts' tokens.
    """

    scale: Tensor
    weights: Tensor
    rows: Tensor
    values: list[Tensor]


@dataclass
class Projection:
    """A linear projection of image tokens to h heads of d channels, split by what prompts share.

    Attributes:
        matrix: [C, h * d], which projects a prompt's rows.
        base: [h, d, N], the projected base.
        constant: What the offset, the positions and the bias add: [h, d, N], or [h * d] where it is the same for all
            image tokens.
    """

    matrix: Tensor
    base: Tensor
    constant: Tensor


@dataclass
class Norm:
    """What prompts share of a norm of ``scale * base + weights^T rows``, in which base and rows have a mean of 0.

    Attributes:
        square: [N], the squared length of each base token.
        linear: [N], twice the product of each base token with the offset before the norm.
        products: For each attention that has added rows, [h, d, N]: the products of its output matrix with the base.
    """

    module: nn.LayerNorm
    square: Tensor
    linear: Tensor
    products: list[Tensor]


@dataclass
class SharedAttention:
    """What the prompts of an image share in the transformer, in the order of its use.

    Attributes:
        keys_0: [h, N, d], of the first attention from the prompts' tokens to the image.
        values_0: [h, N, d], of the same attention.
        queries_0: [h, d, N], of the first attention from the image to the prompts' tokens.
        norm_0: The first norm of the image tokens.
        keys_1: Of the second attention to the image.
        values_1: Of the same attention.
        queries_1: Of the second attention from the image.
        offset_1: [C], the offset after the first norm with the output bias of that attention, less its mean.
        norm_1: The second norm of the image tokens.
        keys_2: Of the final attention to the image.
        values_2: Of the same attention.
        base: [N, C], the base of the final image tokens.
        offset: [C], the offset of the final image tokens.
    """

    keys_0: Tensor
    values_0: Tensor
    queries_0: Tensor
    norm_0: Norm
    keys_1: Projection
    values_1: Projection
    queries_1: Projection
    offset_1: Tensor
    norm_1: Norm
    keys_2: Projection
    values_2: Projection
    base: Tensor
    offset: Tensor


class SharedTransformer(nn.Module):
    """The two-way transformer with the modules, and so the weights, of a SAM 2.

    Args:
        transformer: The sam2 package's transformer, of two layers.
    """

    def __init__(self, transformer: TwoWayTransformer) -> None:
        super().__init__()
        self.first: TwoWayAttentionBlock
        self.second: TwoWayAttentionBlock
        self.first, self.second = transformer.layers
        self.final_attention: Attention = transformer.final_attn_token_to_image
        self.final_norm: nn.LayerNorm = transformer.norm_final_attn

    def share(self, tokens: Tensor, position: Tensor) -> SharedAttention:
        """Compute what the prompts of an image share, from its tokens and their positional encoding, both [N, C]."""
        first, second, final = self.first, self.second, self.final_attention
        read_0, write_0 = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        read_1, write_1 = second.cross_attn_token_to_image, second.cross_attn_image_to_token
        base = centered(tokens + write_0.out_proj.bias)
        square = base.square().sum(dim=1)
        norm_0 = Norm(first.norm4, square, torch.zeros_like(square), [output_matrix(write_0) @ base.T])
        base, offset = base * first.norm4.weight, first.norm4.bias
        keys_1 = project(read_1.k_proj, base, read_1.num_heads, position)
        values_1 = project(read_1.v_proj, base, read_1.num_heads, offset)
        queries_1 = project(write_1.q_proj, base, write_1.num_heads, position + offset)
        base = centered(base)
        offset_1 = centered(offset + write_1.out_proj.bias)
        written = [centered(output_matrix(write_0) * first.norm4.weight), output_matrix(write_1)]
        norm_1 = Norm(
            second.norm4, base.square().sum(dim=1), 2 * base @ offset_1, [matrix @ base.T for matrix in written]
        )
        base, offset = base * second.norm4.weight, second.norm4.bias
        return SharedAttention(
            keys_0=split_heads(read_0.k_proj(tokens + position), read_0.num_heads),
            values_0=split_heads(read_0.v_proj(tokens), read_0.num_heads),
            queries_0=split_heads(write_0.q_proj(tokens + position), write_0.num_heads).transpose(1, 2).contiguous(),
            norm_0=norm_0,
            keys_1=keys_1,
            values_1=values_1,
            queries_1=queries_1,
            offset_1=offset_1,
            norm_1=norm_1,
            keys_2=project(final.k_proj, base, final.num_heads, position),
            values_2=project(final.v_proj, base, final.num_heads, offset),
            base=base,
            offset=offset,
        )

    def forward(self, prompts: Tensor, shared: SharedAttention) -> tuple[Tensor, ImageTokens]:
        """Let the prompts' tokens [n, T, C] and the image tokens attend to each other; both are returned."""
        first, second = self.first, self.second
        tokens = first.norm1(first.self_attn(prompts, prompts, prompts))
        tokens = first.norm2(tokens + self.read_shared(tokens + prompts, shared))
        tokens = first.norm3(tokens + first.mlp(tokens))
        image = self.write_first(tokens, prompts, shared)

        queries = tokens + prompts
        tokens = second.norm1(tokens + second.self_attn(queries, queries, tokens))
        attention = second.cross_attn_token_to_image
        tokens = second.norm2(tokens + read(attention, tokens + prompts, image, shared.keys_1, shared.values_1))
        tokens = second.norm3(tokens + second.mlp(tokens))
        image = self.write_second(tokens, prompts, image, shared)

        attended = read(self.final_attention, tokens + prompts, image, shared.keys_2, shared.values_2)
        return self.final_norm(tokens + attended), image

    def read_shared(self, queries: Tensor, shared: SharedAttention) -> Tensor:
        """The first attention from tokens [n, T, C] to the image, whose keys and values are shared: [n, T, C]."""
        attention = self.first.cross_attn_token_to_image
        count, length, _ = queries.shape
        heads = split_heads(attention.q_proj(queries.flatten(0, 1)), attention.num_heads)  # [h, n T, d]
        attended = F.scaled_dot_product_attention(heads[None], shared.keys_0[None], shared.values_0[None])[0]
        return attention.out_proj(attended.transpose(0, 1).flatten(1)).unflatten(0, (count, length))

    def write_first(self, tokens: Tensor, prompts: Tensor, shared: SharedAttention) -> ImageTokens:
        """The first layer's attention from the image to tokens [n, T, C], and the norm."""
        attention = self.first.cross_attn_image_to_token
        keys = scaled_heads(attention.k_proj(tokens + prompts), attention)
        values = split_heads(attention.v_proj(tokens), attention.num_heads)
        weights = softmax_over_tokens(multiply(keys, shared.queries_0), attention.num_heads)
        rows = multiply(values, output_matrix(attention))
        return normalize(ImageTokens(tokens.new_ones(1, 1, 1), weights, rows, [values]), shared.norm_0)

    def write_second(self, tokens: Tensor, prompts: Tensor, image: ImageTokens, shared: SharedAttention) -> ImageTokens:
        """The second layer's attention from the image to tokens [n, T, C], and the norm."""
        attention = self.second.cross_attn_image_to_token
        keys = scaled_heads(attention.k_proj(tokens + prompts), attention)
        values = split_heads(attention.v_proj(tokens), attention.num_heads)
        weights = softmax_over_tokens(similarities(keys, shared.queries_1, image), attention.num_heads)
        # Each head's weights sum to 1, so adding the offset divided by the number of heads adds it once.
        rows = multiply(values, output_matrix(attention)) + shared.offset_1 / attention.num_heads
        image = ImageTokens(
            image.scale,
            torch.cat([image.weights, weights], dim=1),
            torch.cat([centered(image.rows), rows], dim=1),
            [*image.values, values],
        )
        return normalize(image, shared.norm_1)


def read(attention: Attention, tokens: Tensor, image: ImageTokens, keys: Projection, values: Projection) -> Tensor:
    """Attention from the prompts' tokens [n, T, C] to their image tokens, with keys and values of these: [n, T, C]."""
    heads = attention.num_heads
    queries = scaled_heads(attention.q_proj(tokens), attention)
    weights = attention_weights(similarities(queries, keys, image), dim=-1)  # [n, h T, N]
    of_base = multiply((weights * image.scale).unflatten(1, (heads, -1)), values.base.transpose(1, 2))
    of_rows = (weights @ image.weights.transpose(1, 2)).unflatten(1, (heads, -1))  # [n, h, T, r]
    attended = of_base.view_as(queries) + of_rows @ split_heads(image.rows @ values.matrix, heads)
    return attention.out_proj(attended.transpose(1, 2).flatten(2) + values.constant)


def similarities(vectors: Tensor, projection: Projection, image: ImageTokens) -> Tensor:
    """The products [n, h T, N] of vectors [n, h, T, d] with projected image tokens, plus an amount per vector."""
    rows = split_heads(image.rows @ projection.matrix, len(projection.base))  # [n, h, r, d]
    of_base = multiply(vectors, projection.base)
    shared = torch.addcmul(multiply(vectors, projection.constant), of_base, image.scale)
    return torch.baddbmm(shared, (vectors @ rows.transpose(2, 3)).flatten(1, 2), image.weights)


def normalize(image: ImageTokens, norm: Norm) -> ImageTokens:
    """Apply a norm to image tokens whose base and rows have a mean of 0."""
    parts = [multiply(values, shared) for values, shared in zip(image.values, norm.products, strict=True)]
    products = torch.cat(parts, dim=1) * image.scale  # of the rows with the base, [n, r, N]
    squares = torch.baddbmm(products, image.rows @ image.rows.transpose(1, 2), image.weights, beta=2)
    of_rows = squares.mul_(image.weights).sum(dim=1, keepdim=True)
    of_base = image.scale * (image.scale * norm.square + norm.linear)
    inverse = torch.rsqrt((of_rows + of_base) / image.rows.shape[2] + norm.module.eps)
    return ImageTokens(image.scale * inverse, image.weights * inverse, image.rows * norm.module.weight, image.values)


def multiply(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Multiply each head's vectors [n, h, T, d] with its matrix, [h, d, m], for all prompts at once: [n, h T, m]."""
    count, heads, length, _ = vectors.shape
    products = vectors.transpose(0, 1).flatten(1, 2) @ matrices
    return products.view(heads, count, length, -1).transpose(0, 1).flatten(1, 2)


def project(linear: nn.Linear, base: Tensor, heads: int, added: Tensor) -> Projection:
    """Project image tokens whose base is [N, C] and to which positions [N, C], or an offset [C], are added."""
    constant = linear(added)
    if constant.ndim == 2:
        constant = split_heads(constant, heads).transpose(1, 2).contiguous()
    base = split_heads(base @ linear.weight.T, heads).transpose(1, 2).contiguous()
    return Projection(linear.weight.T, base, constant)


def output_matrix(attention: Attention) -> Tensor:
    """The output projection of each head, [h, d, C], less its mean over the channels."""
    return centered(attention.out_proj.weight.unflatten(1, (attention.num_heads, -1)).permute(1, 2, 0))


def split_heads(maps: Tensor, heads: int) -> Tensor:
    """Reshape [..., L, h * d] to [..., h, L, d]."""
    return maps.unflatten(-1, (heads, -1)).transpose(-3, -2)


def scaled_heads(maps: Tensor, attention: Attention) -> Tensor:
    """Reshape [..., L, h * d] to [..., h, L, d], divided by the square root of d."""
    heads = split_heads(maps, attention.num_heads)
    return heads * heads.shape[-1] ** -0.5


def centered(vectors: Tensor) -> Tensor:
    """Vectors [..., C] less their means."""
    return vectors - vectors.mean(dim=-1, keepdim=True)


def softmax_over_tokens(scores: Tensor, heads: int) -> Tensor:
    """Each head's attention weights [n, h T, N] from scores, which sum to 1 over the T tokens."""
    return attention_weights(scores.unflatten(1, (heads, -1)), dim=2).flatten(1, 2)


def attention_weights(scores: Tensor, dim: int) -> Tensor:
    """Softmax over ``dim``, with negligible weights set to 0."""
    return F.threshold(scores.softmax(dim), NEGLIGIBLE, 0.0, inplace=True)
