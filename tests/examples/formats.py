# SPDX-License-Identifier: MIT
"""Files that the examples read and write, by code that shares nothing with the library: IDX, safetensors, CSV, PNG."""
import csv
import gzip
import json
import random
import struct
import zlib

IMAGE_FILES = {"train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
               "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")}
MEAN, STD = 0.2860, 0.3530  # of Fashion-MNIST's training pixels


# ---- images ----

class Images:
    """side x side pixels of 0..255 in rows, and their labels."""

    def __init__(self, pixels, labels, side):
        self.pixels, self.labels, self.side = pixels, labels, side

    def normalised(self, i):
        return [(v / 255 - MEAN) / STD for v in self.pixels[i]]

    def write(self, folder, kind):
        images, labels = (folder / name for name in IMAGE_FILES[kind])
        n = len(self.labels)
        images.write_bytes(gzip.compress(struct.pack(">HBBIII", 0, 8, 3, n, self.side, self.side)
                                         + b"".join(map(bytes, self.pixels))))
        labels.write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, n) + bytes(self.labels)))


def synthetic(count, shift, seed, side=8, noise=20):
    """Ten classes that are easy to tell apart. Class c has the label (c + shift) mod 10."""
    patterns = random.Random(0)
    prototypes = [[patterns.choice([30, 220]) for _ in range(side * side)] for _ in range(10)]
    rng = random.Random(seed)
    classes = [rng.randrange(10) for _ in range(count)]
    pixels = [[min(255, max(0, v + rng.randint(-noise, noise))) for v in prototypes[c]] for c in classes]
    return Images(pixels, [(c + shift) % 10 for c in classes], side)


# ---- safetensors ----

class Checkpoint:
    def __init__(self, path):
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        self.path, self.header, self.body = path, json.loads(data[8:8 + length]), bytearray(data[8 + length:])
        self.notes = self.header.get("__metadata__", {})

    def bytes_of(self, name):
        begin, end = self.header[name]["data_offsets"]
        return bytes(self.body[begin:end])

    def flat(self, name):
        code = {"F32": "f", "I32": "i"}[self.header[name]["dtype"]]
        data = self.bytes_of(name)
        return list(struct.unpack(f"<{len(data) // 4}{code}", data))

    def names(self):
        return sorted(n for n in self.header if n != "__metadata__")

    def parameters(self):
        return [n for n in self.names() if not n.startswith("optimizer.")]

    def tensor(self, name):
        """Nested lists."""
        values = self.flat(name)
        for size in reversed(self.header[name]["shape"][1:]):
            values = [values[i:i + size] for i in range(0, len(values), size)]
        return values

    def set_flat(self, name, values):
        code = {"F32": "f", "I32": "i"}[self.header[name]["dtype"]]
        begin, end = self.header[name]["data_offsets"]
        self.body[begin:end] = struct.pack(f"<{len(values)}{code}", *values)

    def write(self, path=None):
        text = json.dumps(self.header).encode()
        text += b" " * (-len(text) % 8)
        (path or self.path).write_bytes(struct.pack("<Q", len(text)) + text + bytes(self.body))

    def bits(self):
        """All tensors, to be compared."""
        return {n: (self.header[n]["dtype"], self.header[n]["shape"], self.bytes_of(n)) for n in self.names()}


# ---- tables ----

def table(path):
    """Rows as dictionaries; an empty field is None, a number a float. Raises where a row is not like the header."""
    with open(path, newline="", encoding="utf-8") as f:
        rows = list(csv.reader(f))
    head = rows[0]
    for n, row in enumerate(rows):
        if len(row) != len(head):
            raise ValueError(f"{path}: line {n + 1} has {len(row)} fields, not {len(head)}: {row}")

    def value(text):
        try:
            return float(text) if text else None
        except ValueError:
            return text
    return [dict(zip(head, map(value, row))) for row in rows[1:]]


# ---- pictures ----

def png_fault(path):
    """None, or what is wrong with a PNG: each chunk's checksum, and that the last is IEND."""
    data = path.read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return "no signature"
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        if at + 12 + length > len(data):
            break
        if zlib.crc32(data[at + 4:at + 8 + length]) != struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0]:
            return f"checksum of {kind}"
        at += 12 + length
        if kind == b"IEND":
            return None if at == len(data) else "something follows IEND"
    return "cut off"
