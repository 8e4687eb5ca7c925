"""The paper: "No time to train! Training-Free Reference-Based Instance Segmentation" (arXiv 2507.02798).

This package knows torch, numpy and the two networks, and nothing about files, COCO, Lightning or configuration. Each
step of the paper and where it is (docs/method.md states them all):

======================  ==============================================  ==================================
stage                   step                                            where
======================  ==============================================  ==================================
1 fill the memory       crop a reference, weigh its patches, average    ``fill_memory.py``
2 post-process it       the prototype of a class                        ``memory_bank.py: postprocess``
3 test                  encode the image                                ``encoder.py: Encoder.feature_map``
3                       propose masks                                   ``mask_proposals.py: MaskProposer``
3                       pool the features inside each mask              ``pool.py: pool``
3                       classify by the nearest prototype               ``classify.py: classify``
3                       lower what is more like a negative reference    ``negatives.py: lower_by_negatives``
3                       suppress near-duplicates                        ``suppress.py: suppress``
3                       upsample, keep the best                         ``segmenter.py``
3                       merge, aware of semantics                       ``soft_merge.py: soft_merge``
======================  ==============================================  ==================================

``segmenter.py`` runs all of them; ``plain.py`` is stage 3 on one page, without any savings.
"""
