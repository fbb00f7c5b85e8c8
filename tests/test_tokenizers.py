"""Any tokenizer and any of the languages: a model trained on it finds its words again, in all their forms."""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from chains import end_all, small_corpus, undisturbed

from minicoil import MiniCOIL
from minicoil.runs.files import UserError, load_json
from minicoil.runs.run import open_run
from minicoil.serving.directory import load_parts
from minicoil.stages.draw import group_by_stem, top_forms
from minicoil.stages.export import fastembed_parity
from minicoil.stages.index import count_forms
from minicoil.text.pieces import WordPieces, fold
from minicoil.text.vocabulary import LANGUAGES, positions, stemmer, stop_words

WORDS, DIM = ["bat", "seal"], 3
KINDS = ("wordpiece", "metaspace", "bytes")

GERMAN = """Die Bank im Park war frisch gestrichen.
Auf den Bänken am Fluss saßen alte Leute.
Wir ruhten uns auf einer Bank unter der Linde aus.
Eine hölzerne Bank stand vor dem Haus.
Die Bänke im Garten sind aus Stein.
Er schlief auf einer Bank am Bahnhof.
Neben der Bank blühten die Rosen.
Die Bank erhöhte die Zinsen für Kredite.
Viele Banken verlangen Gebühren für das Konto.
Sie zahlte das Geld bei der Bank ein.
Die Banken vergaben weniger Kredite als früher.
Das Konto bei der Bank war leer.
Der Direktor der Bank lehnte den Kredit ab.
Mit den Banken wurde über Schulden verhandelt."""
SPANISH = """El banco del parque estaba recién pintado.
En los bancos de la plaza dormían los gatos.
Nos sentamos en un banco bajo los árboles.
Había un banco de madera frente a la casa.
Los bancos del jardín son de piedra.
Un anciano descansaba en el banco junto al río.
Dejó el sombrero sobre el banco de la estación.
El banco subió los intereses del crédito.
Muchos bancos cobran por abrir una cuenta.
Ella ingresó el dinero en el banco.
Los bancos dieron menos créditos este año.
La cuenta del banco estaba vacía.
El director del banco negó el préstamo.
El gobierno negoció la deuda con los bancos."""
FRENCH = """L'avocat était mûr et sa chair très verte.
Elle coupa un avocat pour la salade.
Les avocats du marché venaient du Mexique.
Il écrasa deux avocats avec du citron.
Un avocat trop dur ne vaut rien.
La recette demande trois avocats et une tomate.
Le noyau de l'avocat est gros et rond.
L'avocat plaida devant le tribunal.
Les avocats de la défense firent appel.
Mon avocat a perdu le procès hier.
Elle est devenue avocate à Lyon.
Les avocats portaient une robe noire.
Le juge interrompit l'avocat plusieurs fois.
L’avocat de l’accusé demanda la clémence."""
# language: (text, word, [(new sentence, a form of the word it has)], a sentence without the word)
TEXTS = {
    "german": (
        GERMAN,
        "bank",
        [("ZWEI BÄNKE STANDEN DORT.", "bänke"), ("Ohne die Banken geht nichts.", "banken")],
        "Das Bankett war für alle da.",
    ),
    "spanish": (
        SPANISH,
        "banco",
        [("Dos bancos cerraron.", "bancos"), ("¿Qué banco?", "banco")],
        "El baño no era para ti.",
    ),
    "french": (
        FRENCH,
        "avocat",
        [("Deux avocats parlaient.", "avocats"), ("C'est l’avocat!", "avocat")],
        "Le vocal était plus long que prévu.",
    ),
}


@pytest.fixture(autouse=True)
def no_process_left():
    yield
    end_all()


def train_tokenizer(kind, lines):
    """A tokenizer of a kind, trained on lines.

    Cased WordPiece as in BERT, Unigram as in XLM-R, byte-level BPE as in RoBERTa.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    if kind == "wordpiece":
        t, special = (
            Tokenizer(models.WordPiece(unk_token="[UNK]")),
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        )
        t.normalizer, t.pre_tokenizer, t.decoder = (
            normalizers.BertNormalizer(lowercase=False, strip_accents=False),
            pre_tokenizers.BertPreTokenizer(),
            decoders.WordPiece(),
        )
        t.train_from_iterator(
            lines, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
        )
        begin, end = "[CLS]", "[SEP]"
    elif kind == "metaspace":
        t, special = Tokenizer(models.Unigram()), ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        t.normalizer, t.pre_tokenizer, t.decoder = (
            normalizers.NFKC(),
            pre_tokenizers.Metaspace(),
            decoders.Metaspace(),
        )
        t.train_from_iterator(
            lines,
            trainers.UnigramTrainer(
                vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False
            ),
        )
        begin, end = "<s>", "</s>"
    else:
        t, special = Tokenizer(models.BPE()), ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        t.train_from_iterator(
            lines,
            trainers.BpeTrainer(
                vocab_size=500,
                special_tokens=special,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
        begin, end = "<s>", "</s>"
    t.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(x, t.token_to_id(x)) for x in (begin, end)]
    )
    return t


def small_transformer(folder, kind, lines, seed=3, hidden_size=32):
    """Save a random transformer of two layers with a tokenizer of a kind as a sentence transformer.

    Returns its folder.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer, models
    from transformers import (
        BertConfig,
        BertModel,
        PreTrainedTokenizerFast,
        RobertaConfig,
        RobertaModel,
        XLMRobertaConfig,
        XLMRobertaModel,
    )

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(
        kind,
        [
            *lines,
            *(line.upper() for line in lines),
            "“quoted” — (all) signs; known: ’!?… áéíóúüñàâçèêëîïôùûæœßäö",
        ],
    )
    bert = kind == "wordpiece"
    names = (
        ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")
        if bert
        else ("<unk>", "<pad>", "<s>", "</s>", "<mask>")
    )
    special = dict(zip(("unk_token", "pad_token", "cls_token", "sep_token", "mask_token"), names))
    plain = folder.with_name(folder.name + "-plain")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **special
    ).save_pretrained(plain)
    shape = dict(
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=130,
        initializer_range=0.2,
        pad_token_id=tokenizer.token_to_id(names[1]),
    )
    config, model = {
        "wordpiece": (BertConfig, BertModel),
        "metaspace": (XLMRobertaConfig, XLMRobertaModel),
        "bytes": (RobertaConfig, RobertaModel),
    }[kind]
    model(config(**shape)).save_pretrained(plain)
    modules = [models.Transformer(str(plain), max_seq_length=128), models.Pooling(hidden_size, "mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory):
    """(kind, run folder): a run until the model, whose input model has a tokenizer of the kind.

    The target model is MiniLM.
    """
    folder = tmp_path_factory.mktemp(request.param)
    corpus = small_corpus(folder / "corpus.txt", WORDS, each=30, others=40)
    model = small_transformer(
        folder / "model", request.param, corpus.read_text(encoding="utf-8").splitlines()
    )
    return request.param, undisturbed(
        folder / "run", words=WORDS, corpus=[str(corpus)], dim=DIM, pictures=0, input_model=str(model)
    )


def test_words_are_found(trained):
    """In new text, capitals, punctuation and inflections included, every word is found, and no other is."""
    model = MiniCOIL.load(trained[1] / "23_model")
    texts = {
        "A bat.": ["bat"],
        "BATS, (bats) and “bat”!": ["bat"],
        "The seals' cave; Bat’s wing": ["bat", "seal"],
        "the fruit-bat": ["bat"],
        "Sealing wax, combat, acrobats": ["seal"],
        "": [],
        "<s> [CLS]": [],
    }
    for text, words in texts.items():
        vectors = next(model.embed_words([text]))
        assert sorted(vectors) == words, text
        assert all(v.shape == (DIM,) and abs(np.linalg.norm(v) - 1) < 1e-5 for v in vectors.values())


def test_unknown_words_count_for_bm25(trained):
    """Words outside the vocabulary count by their stems, the same in any case and beside any punctuation.

    Stop words, punctuation and special tokens do not.
    """
    model = MiniCOIL.load(trained[1] / "23_model")
    one, other = (next(model.query_embed([text])) for text in ("Caves, the GARDENS.", "(cave) 'garden' and"))
    assert len(one.indices) == 2
    assert sorted(one.indices.tolist()) == sorted(other.indices.tolist())
    assert [len(v.indices) for v in model.embed(["", "the of", "…!?", "“”"])] == [0, 0, 0, 0]


def test_training_and_serving_see_the_same_forms(trained):
    """Every form that training saw leads to its word when serving, and the words' sentences are those a
    reader would name."""
    run = open_run(trained[1])
    _, tokenizer, vocabulary, _ = load_parts(run.stage("model").path)
    seen = load_json(run.stage("sentences").path / "vocabulary.json")["vocabulary"]
    assert all(
        vocabulary.id_of(form) == vocabulary.ids[word] for word in seen for form in seen[word]["forms"]
    )
    text = next(f for f in run.params.corpus)
    lines = [line for line in Path(text).read_text(encoding="utf-8").splitlines() if len(line.split()) > 3]
    for word in WORDS:
        assert seen[word]["sentences"] == sum(
            bool(re.search(rf"\b{word}(s|t?ed|t?ing)?\b", line, re.I)) for line in set(lines)
        )


def test_tokens_of_a_word(trained):
    """A word's token positions are all its pieces in all its occurrences, and nothing else: they spell it."""
    _, tokenizer, vocabulary, _ = load_parts(trained[1] / "23_model")
    pieces, text = WordPieces(tokenizer), "Bats! The bat’s (BAT) batting: a seal."
    e = tokenizer.encode(text)
    found = positions(e.ids, pieces, vocabulary)
    spelled = "".join(text[slice(*e.offsets[i])].strip() for i in found[vocabulary.ids["bat"]])
    assert spelled == "BatsbatBATbatting"


def test_batches_and_dense_agree(trained):
    """Alone or in a batch a text gets the same vector, and the dense vector is sentence-transformers' own."""
    from minicoil.text.transformer import load_transformer

    model, texts = (
        MiniCOIL.load(trained[1] / "23_model"),
        ["A bat.", "Seals and bats and a long tail of other words.", "", "the bat " * 300],
    )
    together, alone = list(model.embed(texts)), [next(model.embed([t])) for t in texts]
    assert all(
        np.array_equal(a.indices, b.indices) and np.abs(a.values - b.values).max(initial=0) < 1e-4
        for a, b in zip(together, alone)
    )
    expected = load_transformer(load_json(trained[1] / "run.json")["parameters"]["input_model"]).model.encode(
        texts[:2]
    )
    assert np.abs(model.embed_both(texts[:2])[0] - expected).max() < 1e-4


def test_the_card_says_what_fastembed_cannot(trained):
    """The model card names FastEmbed's limit, shows no snippet that would mislead, and the parity stage does
    not ask FastEmbed."""
    card = (trained[1] / "23_model" / "README.md").read_text(encoding="utf-8")
    assert "FastEmbed cannot serve" in card
    assert "SparseTextEmbedding" not in card
    assert fastembed_parity(trained[1] / "23_model", ["a bat"]) is None


def test_top_words_are_lower_case(trained):
    """The most frequent words of a cased corpus are named in lower case, each form once."""
    sentences, _, _ = count_forms(open_run(trained[1]).stage("sentences"))
    names = list(top_forms(group_by_stem(sentences, "english"), 50, 5))
    assert names
    assert names == [n.lower() for n in names]
    assert len(set(names)) == len(names)


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory):
    """A transformer with an XLM-R-like tokenizer that keeps case and accents."""
    return small_transformer(
        tmp_path_factory.mktemp("xlm") / "model", "metaspace", (GERMAN + SPANISH + FRENCH).splitlines() * 3
    )


@pytest.mark.parametrize(
    "language, accents", [*((language, "kept") for language in TEXTS), ("german", "stripped")]
)
def test_languages(multilingual, tmp_path, language, accents):
    """A run in German, Spanish or French saves its language, drops its stop words, and serves every
    inflection by its stemmer, whether the tokenizer keeps accents or strips them."""
    text, word, found, without = TEXTS[language]
    (tmp_path / "corpus.txt").write_text(text, encoding="utf-8")
    model = str(multilingual) if accents == "kept" else "all-MiniLM-L6-v2"
    folder = (
        undisturbed(
            tmp_path / "run",
            words=[word],
            corpus=[str(tmp_path / "corpus.txt")],
            language=language,
            dim=DIM,
            samples=20,
            pictures=0,
            input_model=model,
            target_model=str(multilingual),
        )
        / "23_model"
    )
    assert json.loads((folder / "minicoil.json").read_text())["language"] == language
    loaded = MiniCOIL.load(folder)
    seen = load_json(tmp_path / "run" / "11_sentences" / "vocabulary.json")["vocabulary"][word]
    assert seen["sentences"] == 14
    assert len(seen["forms"]) > 1
    for sentence, form in found:
        assert list(next(loaded.embed_words([sentence]))) == [word], sentence
        assert loaded.vocabulary.id_of(form) == 1
    assert list(next(loaded.embed_words([without]))) == []
    stops = sorted(
        stop_words(language)
    )  # one a query: twenty in one are longer than the model reads, and a word cut in half is no stop word
    assert [w for w, v in zip(stops, loaded.query_embed(stops)) if len(v.indices)] == []
    stems = {stemmer(language).stem_word(w) for w in loaded.vocabulary.words}
    assert stems <= set(loaded.vocabulary.stem_mapping)
    assert f"not in {language}" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("language", ["klingon", "tamil", "de", "German", ""])
def test_unknown_language(language):
    """A language without a stemmer or stop words is refused in one line that names those there are."""
    for function in (stemmer, stop_words):
        with pytest.raises(UserError) as e:
            function(language)
        assert all(name in str(e.value) for name in LANGUAGES)
        assert "\n" not in str(e.value)


def test_english_stop_words_are_fastembeds():
    """English stop words are NLTK's list and the pieces of its contractions, nothing more."""
    from bm25s.stopwords import STOPWORDS_EN_PLUS

    pieces = {p for w in STOPWORDS_EN_PLUS for p in w.split("'") if p}
    assert stop_words("english") == set(STOPWORDS_EN_PLUS) | pieces


def test_unknown_kind_of_tokenizer():
    """A tokenizer that marks words in a fourth way is refused in one line that names the three."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    for model in (
        models.BPE(end_of_word_suffix="</w>"),
        models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"),
        models.WordPiece({"a": 0, "@@b": 1}, continuing_subword_prefix="@@"),
    ):
        t = Tokenizer(model)
        t.pre_tokenizer = pre_tokenizers.Whitespace()
        with pytest.raises(UserError, match="WordPiece with ##, SentencePiece .* and byte-level BPE"):
            WordPieces(t)


def test_bytes_without_a_character():
    """Byte fallback pieces and characters cut in two by BPE are read as the characters they make.

    A cut at the end harms nothing.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab = {"<unk>": 0, "▁": 1, "▁b": 2, "t": 3, **{f"<0x{b:02X}>": 4 + b for b in range(256)}}
    t = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    t.pre_tokenizer, t.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    pieces = WordPieces(t)
    ids = [2, *(4 + b for b in "ä".encode()), 3, *(4 + b for b in "’".encode()), 3]
    assert pieces.words(ids) == ["bät", "t"]
    assert pieces.words(ids[:2]) == ["b"]


def test_folding():
    """A form is composed, lower case and without invisible characters, so all spellings of a word meet."""
    assert {
        fold(w)
        for w in (
            "Fledermäuse",
            "fledermäuse",
            "Fleder\u00admäuse",
            "FLEDERMÄUSE",
            "„Fledermäuse“",
            "Fledermäuse\u200b,",
        )
    } == {"fledermäuse"}
    assert fold("…") == fold("") == fold("\u200b") == ""


def test_no_form_is_lost():
    """Every form of the bundled corpus's frequent words leads to its word when serving.

    With the original's stems of stems some would not.
    """
    from minicoil.stages.draw import forms_of
    from minicoil.stages.index import index_forms
    from minicoil.text.readers import demo_documents
    from minicoil.text.transformer import load_tokenizer
    from minicoil.text.vocabulary import lost_forms, make_vocabulary, vocabulary_of_stems

    _, counts = index_forms(demo_documents(), load_tokenizer("all-MiniLM-L6-v2"))
    groups = group_by_stem(counts, "english")
    forms = forms_of(top_forms(groups, 400, 5), groups, counts, "english")
    stem = stemmer("english").stem_word
    assert len(forms) == 400
    assert sum(map(len, forms.values())) > 600
    assert lost_forms(forms, make_vocabulary(forms)) == {}
    assert lost_forms({stem(word): found for word, found in forms.items()}, vocabulary_of_stems(forms))
