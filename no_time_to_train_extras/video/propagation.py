"""Masks carried from frame to frame by the memory of SAM 2, between the frames in which objects are detected.

This is what ``SAM2VideoPredictor`` of the sam2 package computes, with two differences: frames come as a stream, so that
neither they nor the past are kept, and objects go through the network together. As there, a track's first mask is
given, and each frame attends to the memories of that frame and of the last few, and to the object pointers of some
more. What no later frame can attend to is forgotten. Small holes in masks are not filled.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.upsample import upsample

#: Tracks that go through the network at once. It affects speed and memory only, never results.
AT_ONCE = 16

#: More frames than a video has: how many there will be is not known.
ENDLESS = 2**31

#: A logit whose sigmoid is 0 or 1.
CERTAIN = 1e4


#: What is remembered of at most ``AT_ONCE`` tracks, as the sam2 package reads it: of the frame with the masks that were
#: given, and of later frames, by their number.
Memory = dict[str, dict[int, dict[str, Any]]]


class Propagator:
    """Carries the masks of one video's tracks. Call it in the context in which the segmenter is called.

    At SAM 2's full size, a track takes at most 4 MB on the device of the networks, however long it is carried.

    Args:
        segmenter: Its SAM 2 is used; the official checkpoints have the weights of the memory.

    Attributes:
        track_ids: int64 [n], those of the last :meth:`start`.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        assert segmenter.proposer is not None
        self.proposer = segmenter.proposer
        self.sam2 = segmenter.proposer.sam2
        stride = self.sam2.memory_temporal_stride_for_eval
        self.memories = (self.sam2.num_maskmem - 2) * stride + 1  # how many frames back the furthest memory is
        self.pointers = max(self.sam2.max_obj_ptrs_in_encoder - 1, self.memories)
        self.track_ids = np.zeros(0, np.int64)
        self.size = 0, 0
        self.frame = 0
        self.groups: list[Memory] = []

    @torch.inference_mode()
    def start(self, image: Tensor, masks: Masks, track_ids: NDArray[np.int64]) -> None:
        """Forget all tracks, and start others with their masks in a frame.

        Args:
            image: float [3, S, S] in [0, 1], the whole frame at SAM 2's input size (``target_image.target_tensor``), on
                the networks' device. Where it is the tensor that the segmenter has just seen, it is not encoded again.
            masks: n masks at the frame's own size, none of them empty.
            track_ids: int64 [n], the track of each.
        """
        maps = self._encode(image)
        self.track_ids, self.size, self.frame = track_ids, (masks.height, masks.width), 0
        self.groups = []
        for first in range(0, len(masks), AT_ONCE):
            dense = torch.from_numpy(masks[first : first + AT_ONCE].dense()).to(image.device)[:, None].float()
            given = F.interpolate(dense, self.proposer.size, mode="bilinear", antialias=True) >= 0.5
            _, _, _, logits, _, pointers, presence = self._look(maps, given.float(), {})
            enlarged = F.interpolate(logits, self.proposer.size, mode="bilinear")
            certain = torch.where(enlarged > 0, CERTAIN, -CERTAIN)  # of masks, not of probabilities
            first_frame = self._remember(maps, certain, pointers, presence)
            self.groups.append({"cond_frame_outputs": {0: first_frame}, "non_cond_frame_outputs": {}})

    @torch.inference_mode()
    def step(self, image: Tensor) -> tuple[Masks, Tensor]:
        """Find the tracks in the next frame.

        Args:
            image: As of :meth:`start`.

        Returns:
            The n masks at the frame's own size, in the order of ``track_ids``; that of a track which is not seen is
            empty. And their predicted IoUs, float32 [n] in [0, 1] on the CPU; 0 where a track is not seen.
        """
        logits, predicted_iou = self.logits(image)
        return upsample(logits, *self.size), predicted_iou.cpu()

    @torch.inference_mode()
    def logits(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`step` with masks as float32 logits [n, S / 4, S / 4], on the networks' device."""
        maps = self._encode(image)
        self.frame += 1
        every, ious = [image.new_zeros(0, self.proposer.size // 4, self.proposer.size // 4)], [image.new_zeros(0)]
        for group in self.groups:
            _, _, predicted_iou, logits, enlarged, pointers, presence = self._look(maps, None, group)
            past = group["non_cond_frame_outputs"]
            past[self.frame] = self._remember(maps, enlarged, pointers, presence)
            past.pop(self.frame - self.pointers, None)
            past.get(self.frame - self.memories, {}).pop("maskmem_features", None)
            every.append(logits[:, 0])
            ious.append(torch.where(presence[:, 0] > 0, predicted_iou.amax(1).clamp(0, 1), 0).float())
        return torch.cat(every), torch.cat(ious)

    def _encode(self, image: Tensor) -> list[Tensor]:
        """The feature maps of a frame, [1, C, h, w], the finest first."""
        embedding, finer = self.proposer.encode(image)
        if self.proposer.no_mem_embed:  # only a frame without a past has it, and SAM 2 adds it there
            embedding = embedding - self.sam2.no_mem_embed.view(1, -1, 1, 1)
        return [*finer, embedding]

    def _look(self, maps: list[Tensor], masks: Tensor | None, group: Memory) -> tuple[Tensor, ...]:
        """What SAM 2 says of a group's tracks in a frame, as its ``_forward_sam_heads`` returns it."""
        count = len(group["cond_frame_outputs"][0]["obj_ptr"] if masks is None else masks)
        position = self.sam2.image_encoder.neck.position_encoding(maps[-1])
        _, found, _, _ = self.sam2._track_step(
            frame_idx=self.frame,
            is_init_cond_frame=masks is not None,
            current_vision_feats=_tokens(maps, count),
            current_vision_pos_embeds=_tokens([position], count),
            feat_sizes=[each.shape[2:] for each in maps],
            point_inputs=None,
            mask_inputs=masks,
            output_dict=group,
            num_frames=ENDLESS,
            track_in_reverse=False,
            prev_sam_mask_logits=None,
        )
        return tuple(found)

    def _remember(self, maps: list[Tensor], masks: Tensor, pointers: Tensor, presence: Tensor) -> dict[str, Any]:
        """What later frames attend to: masks, logits [n, 1, S, S], encoded with the frame, and object pointers."""
        features, positions = self.sam2._encode_new_memory(
            current_vision_feats=_tokens(maps[-1:], len(masks)),
            feat_sizes=[maps[-1].shape[2:]],
            pred_masks_high_res=masks,
            object_score_logits=presence,
            is_mask_from_pts=False,
        )
        shared = positions[-1][:1].expand(len(masks), -1, -1, -1)  # the same for all masks
        return {"maskmem_features": features.bfloat16(), "maskmem_pos_enc": [shared], "obj_ptr": pointers}


def _tokens(maps: list[Tensor], count: int) -> list[Tensor]:
    """Maps [1, C, h, w] for each of some tracks, as the sam2 package takes them: [h * w, count, C]."""
    return [each.expand(count, -1, -1, -1).flatten(2).permute(2, 0, 1) for each in maps]
