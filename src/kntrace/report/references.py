"""What the methods paragraphs cite."""

from __future__ import annotations

__all__ = ["BIBTEX", "REFERENCES"]

REFERENCES = (
    "Ariyama, Heinzerling, Kokuta, Inui (2025): Knowledge neurons of similar words go through "
    "similar formation processes. NLP2025, A8-1 (in Japanese).",
    "Dai, Dong, Hao, Sui, Chang, Wei (2022): Knowledge neurons in pretrained transformers. ACL.",
    "Holm (1979): A simple sequentially rejective multiple test procedure. Scandinavian Journal "
    "of Statistics 6.",
    "Phipson, Smyth (2010): Permutation p-values should never be zero. Statistical Applications "
    "in Genetics and Molecular Biology 9.",
    "Rubner, Tomasi, Guibas (1998): A metric for distributions with applications to image "
    "databases. ICCV.",
    "Sundararajan, Taly, Yan (2017): Axiomatic attribution for deep networks. ICML.",
)

BIBTEX = """\
@inproceedings{ariyama2025formation,
  author = {Ariyama and Heinzerling and Kokuta and Inui},
  title = {Knowledge neurons of similar words go through similar formation processes},
  booktitle = {NLP2025}, note = {A8-1, in Japanese}, year = {2025}}
@inproceedings{dai2022knowledge,
  author = {Dai and Dong and Hao and Sui and Chang and Wei},
  title = {Knowledge Neurons in Pretrained Transformers},
  booktitle = {ACL}, year = {2022}}
@article{holm1979simple,
  author = {Holm},
  title = {A Simple Sequentially Rejective Multiple Test Procedure},
  journal = {Scandinavian Journal of Statistics}, volume = {6}, year = {1979}}
@article{phipson2010permutation,
  author = {Phipson and Smyth},
  title = {Permutation P-values Should Never Be Zero},
  journal = {Statistical Applications in Genetics and Molecular Biology},
  volume = {9}, year = {2010}}
@inproceedings{rubner1998metric,
  author = {Rubner and Tomasi and Guibas},
  title = {A Metric for Distributions with Applications to Image Databases},
  booktitle = {ICCV}, year = {1998}}
@inproceedings{sundararajan2017axiomatic,
  author = {Sundararajan and Taly and Yan},
  title = {Axiomatic Attribution for Deep Networks},
  booktitle = {ICML}, year = {2017}}
"""
