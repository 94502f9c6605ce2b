"""Texts that are nearly the same, by MinHash and locality-sensitive hashing.

Broder, "On the resemblance and containment of documents" (1997); Indyk and Motwani, "Approximate nearest neighbors"
(1998). A text's signature has, for each of `_HASHES` hash functions, the least hash of its shingles; two signatures
agree in about the share of shingles that the texts have in common (Jaccard). Only texts that agree in all of a band of
the signature are compared.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SIMILAR = 0.8
"""The share of common shingles from which two texts are nearly the same."""
_SHINGLE_BYTES = 8
_HASHES, _BANDS = 64, 16
_CHARACTERS = 4000
"""Of each text, as many of its first characters are looked at."""
_GENERATOR = np.random.default_rng(7_266)  # fixed, for signatures of all batches must be made in the same way
_FACTORS = _GENERATOR.integers(0, 2**63, _HASHES, dtype=np.uint64) * 2 + 1
_OFFSETS = _GENERATOR.integers(0, 2**63, _HASHES, dtype=np.uint64)
Signatures = npt.NDArray[np.uint32]


def signatures(texts: Sequence[str]) -> Signatures:
    """The MinHash signatures of texts, (texts, 64); upper and lower case, and white space, are the same."""
    encoded = [" ".join(text[:_CHARACTERS].split()).casefold().encode("utf-8", "replace") for text in texts]
    padded = [text.ljust(_SHINGLE_BYTES) for text in encoded]
    if not padded:
        return np.empty((0, _HASHES), np.uint32)
    shingles = [len(text) - _SHINGLE_BYTES + 1 for text in padded]
    codes = np.frombuffer(b"".join(padded), np.uint8).astype(np.uint64)
    hashes = np.zeros(len(codes) - _SHINGLE_BYTES + 1, np.uint64)
    for offset in range(_SHINGLE_BYTES):
        hashes = (hashes << np.uint64(8)) | codes[offset : offset + len(hashes)]
    lengths = np.array([len(text) for text in padded])
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    kept = np.concatenate([np.arange(start, start + count) for start, count in zip(starts, shingles, strict=True)])
    hashes = _mixed(hashes[kept])
    begins = np.concatenate(([0], np.cumsum(shingles)[:-1]))
    found = np.empty((len(texts), _HASHES), np.uint32)
    for number, (factor, offset) in enumerate(zip(_FACTORS, _OFFSETS, strict=True)):
        function = ((hashes * factor + offset) >> np.uint64(32)).astype(np.uint32)
        found[:, number] = np.minimum.reduceat(function, begins)
    return found


def repeated(found: Signatures) -> npt.NDArray[np.int64]:
    """For each text the index of an earlier one that is nearly the same; -1 where none was found."""
    earlier = np.full(len(found), -1, np.int64)
    for band in np.split(found, _BANDS, axis=1):
        # Texts that agree in the whole band lie together, the earliest first; each is compared with that one.
        order = np.lexsort((np.arange(len(band)), *band.T))
        first = np.ones(len(order), bool)
        first[1:] = np.any(band[order[1:]] != band[order[:-1]], axis=1)
        leader = order[np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))]
        follower, leader = order[~first], leader[~first]
        alike = np.mean(found[follower] == found[leader], axis=1) >= SIMILAR
        earlier[follower[alike]] = leader[alike]
    return earlier


def _mixed(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Every bit of a hash made to depend on all others (the finaliser of Steele's SplitMix64, 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
