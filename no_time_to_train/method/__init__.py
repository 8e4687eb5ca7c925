"""The paper: "No time to train! Training-Free Reference-Based Instance Segmentation" (arXiv 2507.02798).

``plain.py`` is the paper on one page. The other files of this folder are its steps (docs/method.md states them all),
``fast/`` is what only makes them fast, and ``beyond/`` is what the paper does not have. The package knows torch, numpy
and the two networks, and nothing about files, COCO, Lightning or configuration.

======================  ==============================================  =====================================
stage                   step                                            where
======================  ==============================================  =====================================
1 fill the memory       crop a reference, weigh its patches, average    ``fill_memory.py``
2 post-process it       the prototype of a class                        ``memory_bank.py: postprocess``
3 test                  squash the image to a square                    ``target_image.py: target_tensor``
3                       encode it                                       ``encoder.py: Encoder.feature_map``
3                       propose masks                                   ``mask_proposals.py: MaskProposer``
3                       pool the features inside each mask              ``pool.py: pool``
3                       classify by the nearest prototype               ``classify.py: classify``
3                       suppress near-duplicates                        ``suppress.py: suppress``
3                       upsample                                        ``upsample.py: upsample``
3                       merge, aware of semantics                       ``soft_merge.py: soft_merge``
3                       keep the best                                   ``segmenter.py: keep_best``
======================  ==============================================  =====================================

``segmenter.py`` runs all of them on ``proposals.py`` and returns ``detections.py``; ``settings.py`` has the numbers.
"""
