import pytest
import torch

from model.attention import SHORT_CONTEXT, Attention, attend_as, on_cuda, rotary_table, rotate, sdpa, textbook
from model.cache import Cache
from model.config import Architecture, GPTConfig
from model.gpt import GPT
from model.patterns import consecutive, restarting
from model.presets import GPT2, MODERN

PATTERNS = ["full", "local", "banded", "strided", "fixed"]
LENGTH = 40
DOCUMENTS = torch.stack([torch.arange(LENGTH) // 7, (torch.arange(LENGTH) > 25).long()])


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def shape_of(pattern, **values):
    return Architecture(width=32, heads=4, attention=(pattern,), window=9, stride=8, summary=2, **values)


def mixed(backend, shape, places, heads, dtype):
    """What a backend makes of random queries, keys and values, and its gradients."""
    random = torch.Generator().manual_seed(1)
    inputs = [torch.randn(2, count, LENGTH, 8, generator=random, dtype=dtype) for count in heads]
    inputs = [tensor.requires_grad_(backend != "flex") for tensor in inputs]
    with torch.set_grad_enabled(backend != "flex"):
        output = attend_as(shape.attention[0], shape, places, backend)(*inputs, 0.3, 0.0)
    if backend == "flex":
        return output, []
    return output.detach(), torch.autograd.grad(output.square().sum(), inputs)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kv_heads", [4, 2, 1], ids=["each", "grouped", "one"])
@pytest.mark.parametrize("within", [False, True], ids=["whole", "documents"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_backends_agree(pattern, kv_heads, within, dtype):
    shape = shape_of(pattern, kv_heads=kv_heads)
    places = restarting(DOCUMENTS) if within else consecutive(LENGTH, DOCUMENTS.device)
    heads = (4, kv_heads, kv_heads)
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    output, gradients = mixed("math", shape, places, heads, dtype)
    for backend in ("auto", "sdpa"):
        other, others = mixed(backend, shape, places, heads, dtype)
        torch.testing.assert_close(other, output, **tolerance)
        torch.testing.assert_close(others, gradients, **tolerance)
    # FlexAttention has no backward pass on a CPU; its forward is the same mathematics as on a GPU.
    torch.testing.assert_close(mixed("flex", shape, places, heads, dtype)[0], output, **tolerance)


@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "bare"])
def test_attention_is_what_the_papers_formula_says(scaled):
    shape = shape_of("full", kv_heads=2, positions="learned", scaled_attention=scaled, bias=True)
    torch.manual_seed(0)
    attention = Attention(shape).double()
    x = torch.randn(1, 5, 32, dtype=torch.float64)
    projected = attention.qkv(x)[0]
    query, key, value = projected[:, :32], projected[:, 32:48], projected[:, 48:]
    heads = []
    for head in range(4):
        mine, shared = slice(8 * head, 8 * head + 8), slice(8 * (head // 2), 8 * (head // 2) + 8)
        products = query[:, mine] @ key[:, shared].T / (8**0.5 if scaled else 1)
        seen = products + torch.full((5, 5), -torch.inf, dtype=torch.float64).triu(1)
        heads.append(seen.softmax(-1) @ value[:, shared])
    expected = attention.out(torch.cat(heads, dim=-1))
    attend = attend_as("full", shape, consecutive(5, x.device), "auto")
    torch.testing.assert_close(attention(x, attend, None, None)[0], expected, rtol=0, atol=1e-12)


def test_biases_of_queries_keys_and_values_are_a_choice_of_their_own():
    def biases(**values):
        attention = Attention(Architecture(**values))
        return attention.qkv.bias is not None, attention.out.bias is not None

    assert biases(bias=True) == (True, True)
    assert biases(bias=True, qkv_bias=False) == (False, True)
    assert biases(bias=False, qkv_bias=True) == (True, False)


def test_rotation_keeps_lengths_and_makes_products_depend_on_distance_alone():
    config = GPTConfig(layers=1, heads=1, width=8, context=64, vocab_size=2)
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    turned = [rotate(x.expand(1, 1, 64, 8), rotary_table(config))[0, 0] for x in (query, key)]
    torch.testing.assert_close(turned[0].norm(dim=-1), query.norm().expand(64))
    products = turned[0] @ turned[1].T
    torch.testing.assert_close(products[5, 2], products[43, 40])
    assert not torch.isclose(products[5, 2], products[6, 2])


def test_with_rotary_positions_only_the_distance_between_tokens_counts():
    shape = shape_of("full", kv_heads=2)
    torch.manual_seed(0)
    attention, x = Attention(shape), torch.randn(1, 5, 32)
    attend = attend_as("full", shape, consecutive(5, x.device), "auto")
    here, there, apart = (
        attention(x, attend, tuple(table[places] for table in rotary_table(shape)), None)
        for places in ([0, 1, 2, 3, 4], [50, 51, 52, 53, 54], [0, 10, 20, 30, 40])
    )
    torch.testing.assert_close(here, there)
    assert not torch.allclose(here, apart, atol=1e-4)


def test_a_larger_base_turns_the_slow_pairs_slower():
    slow, slower = (rotary_table(Architecture(rotary_base=base))[1][1] for base in (1e4, 5e5))
    assert slow[0] == slower[0]
    assert (slower[1:] < slow[1:]).all()


def bold(**values):
    """A model of double precision whose weights are large enough that every mistake shows."""
    torch.manual_seed(0)
    shape = {"layers": 2, "heads": 4, "width": 32, "context": 64, "vocab_size": 50}
    model = GPT(GPTConfig(**{**shape, "window": 9, "stride": 8, "summary": 2, **values})).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


def some_ids(length=LENGTH, size=2):
    return torch.randint(50, (size, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("base", [MODERN, GPT2], ids=["rotary", "learned"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_token_sees_what_its_pattern_says_and_nothing_else(base, pattern):
    model = bold(**base, layers=1, attention=(pattern,))
    ids, place = some_ids(), 5
    changed = ids.clone()
    changed[:, place] = (changed[:, place] + 1) % 50
    differs = (model(ids) - model(changed)).abs().amax(dim=(0, 2)) > 1e-9
    reach = {"full": range(place, LENGTH), "local": range(place, place + 9), "strided": [*range(5, 14), 21, 29, 37]}
    reach |= {"banded": reach["local"], "fixed": range(place, 8)}
    assert differs.nonzero().flatten().tolist() == [i for i in range(LENGTH) if i in reach[pattern]]


@pytest.mark.parametrize(("silent", "reach"), [(0, 9), (1, LENGTH)])
def test_each_layer_has_the_pattern_of_its_own(silent, reach):
    model = bold(attention=("full", "local"))
    with torch.no_grad():
        model.blocks[silent].attention.out.weight.zero_()
    ids = some_ids()
    changed = ids.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 50
    differs = (model(ids) - model(changed)).abs().amax(dim=(0, 2)) > 1e-9
    assert differs.tolist() == [place < reach for place in range(LENGTH)]


@pytest.mark.parametrize("base", [MODERN, GPT2], ids=["rotary", "learned"])
@pytest.mark.parametrize("attention", [*((pattern,) for pattern in PATTERNS), ("full", "fixed")], ids="-".join)
def test_a_document_reads_the_same_alone_and_among_others(base, attention):
    model = bold(**base, attention=attention, within_documents=True)
    ids = some_ids()
    packed = model(ids, DOCUMENTS)
    for row in range(2):
        for number in DOCUMENTS[row].unique():
            mine = DOCUMENTS[row] == number
            torch.testing.assert_close(packed[row, mine], model(ids[row, mine][None])[0], rtol=0, atol=1e-10)


def test_documents_are_ignored_unless_the_shape_keeps_them_apart():
    model = bold(within_documents=False)
    assert model(some_ids(), DOCUMENTS).equal(model(some_ids()))


@pytest.mark.parametrize("base", [MODERN, GPT2], ids=["rotary", "learned"])
@pytest.mark.parametrize("kv_heads", [4, 2], ids=["each", "grouped"])
@pytest.mark.parametrize("attention", [*((pattern,) for pattern in PATTERNS), ("full", "local")], ids="-".join)
def test_logits_with_a_cache_are_those_without(base, kv_heads, attention):
    model = bold(**base, kv_heads=kv_heads, attention=attention)
    ids, lengths = some_ids(length=64), [27, 9]
    cache = Cache.empty(model.config, lengths, model.embedding.weight)
    whole = model(ids)
    prompts = model(ids[:, :27], cache=cache)  # the second row is padded with tokens that are not its own
    for row, length in enumerate(lengths):
        torch.testing.assert_close(prompts[row, :length], whole[row, :length], rtol=0, atol=1e-10)
    for _ in range(37):
        cache.grow()
        newest = (cache.lengths - 1)[:, None]
        told = model(ids.gather(1, newest), cache=cache)[:, 0]
        torch.testing.assert_close(told, whole[torch.arange(2), newest[:, 0]], rtol=0, atol=1e-10)


def test_reading_a_token_with_a_cache_never_waits_for_a_number():
    """A number read from a tensor is a wait for the GPU, once a layer and token."""
    model = bold(attention=("full", "local")).eval()
    cache = Cache.empty(model.config, [27, 9], model.embedding.weight)
    with torch.no_grad(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(some_ids(length=27), cache=cache)
        cache.grow()
        model(some_ids(length=1), cache=cache)
    assert "aten::_local_scalar_dense" not in {event.name for event in profile.events()}


def test_a_cache_of_local_attention_is_no_larger_than_its_window():
    model = bold(attention=("full", "local"), window=7)
    cache = Cache.empty(model.config, [3], model.embedding.weight)
    assert [layer.keys.shape[2] for layer in cache.layers[:2]] == [model.config.context, 7]


def without_dropout_but(place):
    """A model in training that drops numbers in one place alone."""
    model = bold(layers=1)
    match place:
        case "embeddings":
            model.dropout.p = 0.5
        case "attention":
            model.blocks[0].attention.dropout = 0.5
        case "blocks":
            model.blocks[0].dropout.p = 0.5
    return model


@pytest.mark.parametrize("place", ["embeddings", "attention", "blocks"])
def test_dropout_acts_in_each_place_and_in_training_alone(place):
    model, ids = without_dropout_but(place), some_ids()
    assert not model(ids).equal(model(ids))
    model.eval()
    assert model(ids).equal(model(ids))
    assert bold(layers=1, dropout=0.5).eval()(ids).equal(model(ids))


@pytest.mark.parametrize("silent", ["attention", "mlp"])
def test_what_either_half_of_a_block_adds_is_dropped(silent):
    model, ids = without_dropout_but("blocks"), some_ids()
    with torch.no_grad():
        getattr(model.blocks[0], silent).out.weight.zero_()
    assert not model(ids).equal(model(ids))


def test_dropout_in_a_shape_is_dropout_in_every_place():
    model = bold(dropout=0.25)
    assert {model.dropout.p, *(block.dropout.p for block in model.blocks)} == {0.25}
    assert {block.attention.dropout for block in model.blocks} == {0.25}


@pytest.mark.parametrize("attention", [("full",), ("full", "fixed")], ids="-".join)
@pytest.mark.parametrize("within", [False, True], ids=["whole", "documents"])
def test_a_step_is_one_graph(attention, within):
    model = bold(attention=attention, within_documents=within).float()
    documents = DOCUMENTS if within else None
    compiled = torch.compile(model.loss, fullgraph=True, backend="aot_eager")
    loss = compiled(some_ids(), some_ids().roll(-1, 1), documents)
    loss.backward()
    torch.testing.assert_close(loss, model.loss(some_ids(), some_ids().roll(-1, 1), documents))
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize(("length", "expected"), [(SHORT_CONTEXT, textbook), (SHORT_CONTEXT + 1, sdpa)])
def test_on_a_cpu_in_bfloat16_a_short_context_takes_the_textbook(length, expected):
    shape, places = shape_of("full"), consecutive(length, DOCUMENTS.device)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attend_as("full", shape, places, "auto").func is expected
    assert attend_as("full", shape, places, "auto").func is sdpa


@pytest.mark.parametrize(
    ("heads", "dropout", "has_triton", "expected"),
    [(2, 0.0, True, "flex"), (4, 0.0, True, "sdpa"), (2, 0.1, True, "sdpa"), (2, 0.0, False, "sdpa")],
    ids=["wide enough", "heads of 8", "dropout", "no Triton"],
)
def test_flex_attention_is_taken_where_it_can_be_compiled(heads, dropout, has_triton, expected):
    assert on_cuda(Architecture(width=32, heads=heads, dropout=dropout), has_triton) == expected


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("backend", ["math", "sdpa"])
def test_in_bfloat16_backends_round_the_same_little(pattern, backend):
    attend = attend_as(pattern, shape_of(pattern), consecutive(LENGTH, DOCUMENTS.device), backend)
    random = torch.Generator().manual_seed(1)
    rounded = [torch.randn(2, 4, LENGTH, 8, generator=random).bfloat16().requires_grad_() for _ in range(3)]
    exact = [tensor.detach().double().requires_grad_() for tensor in rounded]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attend(*rounded, 0.3, 0.0)
    right = attend(*exact, 0.3, 0.0)
    found, right = ((x, *torch.autograd.grad(x.sum(), inputs)) for x, inputs in ((found, rounded), (right, exact)))
    for rough, fine in zip(found, right, strict=True):
        assert torch.linalg.vector_norm(rough - fine) < 0.02 * torch.linalg.vector_norm(fine)
