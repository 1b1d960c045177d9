import torch

from benchmarks import checkpoint


def test_a_small_head_keeps_its_rotary_frequencies() -> None:
    small, large = 16, checkpoint.HEAD_DIM
    places = checkpoint.rotary_places(small).tolist()
    for d, place in enumerate(places[: small // 2]):
        assert place / large == d / small  # the exponents of theta
        assert places[d + small // 2] == place + large // 2  # the other half of the rotated pair


def test_a_matrix_reads_the_hidden_vector_twice_over() -> None:
    weight, hidden = torch.randn(6, 4), torch.randn(4)
    found = checkpoint.reads_hidden(weight) @ torch.cat([hidden, hidden])
    assert torch.allclose(found, weight @ hidden, atol=1e-6)


def test_size_and_layout() -> None:
    shapes = checkpoint.shapes()
    parameters = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert parameters * 4 >= 300e6
    config = checkpoint.config("float32")
    assert (config["hidden_size"], config["head_dim"], config["num_key_value_heads"]) == (512, 64, 8)
    assert len([name for name in shapes if name.endswith("q_proj.weight")]) == config["num_hidden_layers"]
