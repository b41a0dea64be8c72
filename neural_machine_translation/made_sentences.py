"""Everyday sentences, made of a few hundred words (data/lexicon.tsv) by a small grammar of English and German.

    pairs = make(20_000, random.Random(0))

Translations of programs hardly have first and second persons, questions, what happened yesterday, or clauses that begin
with "because"; these have. What they say is likely more often than true. `prepare_debian.py` adds them to its corpora.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from neural_machine_translation.reader import Pair

Case = int
NOMINATIVE, ACCUSATIVE, DATIVE = range(3)
LEXICON = Path(__file__).resolve().parent / "data" / "lexicon.tsv"

DEFINITE = {
    "m": ("der", "den", "dem"),
    "f": ("die", "die", "der"),
    "n": ("das", "das", "dem"),
    "p": ("die", "die", "den"),
}
ENDINGS = {"m": ("", "en", "em"), "f": ("e", "e", "er"), "n": ("", "", "em"), "p": ("e", "e", "en")}
"""Of ein, kein, mein by gender (p: plural) and case."""
STRONG = {"m": ("er", "en"), "f": ("e", "e"), "n": ("es", "es"), "p": ("e", "e")}
"""Of an adjective after ein, and of one without an article in the plural; in the dative after ein it is `en`."""
POSSESSIVES = {"I": ("my", "mein"), "you": ("your", "dein"), "he": ("his", "sein"), "she": ("her", "ihr"), "we": ("our", "unser"),
               "they": ("their", "ihr"), "You": ("your", "Ihr")}  # fmt: skip
PRONOUNS = {"I": ("mich", "mir"), "you": ("dich", "dir"), "he": ("ihn", "ihm"), "she": ("sie", "ihr"), "we": ("uns", "uns"),
            "they": ("sie", "ihnen"), "You": ("Sie", "Ihnen")}  # fmt: skip
OBJECTS = {"I": "me", "he": "him", "she": "her", "we": "us", "they": "them"}
IRREGULAR = {
    "haben": "habe hast hat haben habt haben", "sein": "bin bist ist sind seid sind", "werden": "werde wirst wird werden werdet werden",
    "war": "war warst war waren wart waren", "können": "kann kannst kann können könnt können", "müssen": "muss musst muss müssen müsst müssen",
    "wollen": "will willst will wollen wollt wollen", "sollen": "soll sollst soll sollen sollt sollen",
    "möchten": "möchte möchtest möchte möchten möchtet möchten", "wissen": "weiß weißt weiß wissen wisst wissen",
}  # fmt: skip
MODALS = {"can": "können", "must": "müssen", "should": "sollen", "want": "wollen", "like": "möchten", "will": "werden"}
SPOKEN = {
    "can not": "can't", "will not": "won't", "would not": "wouldn't", "should not": "shouldn't", "do not": "don't", "does not": "doesn't",
    "did not": "didn't", "have not": "haven't", "has not": "hasn't", "I am": "I'm", "he is": "he's", "she is": "she's", "we are": "we're",
    "they are": "they're", "you are": "you're", "I will": "I'll", "we will": "we'll", "I would": "I'd", "there is": "there's",
}  # fmt: skip
STATES = ("need", "know", "love", "understand", "see", "hear", "forget")
"""Verbs that are not `going on`."""
PERSONS = ("ich", "du", "er", "wir", "ihr", "sie")


@dataclass(frozen=True)
class Noun:
    """English and German in singular and plural; `gender` m, f, n or w, a masculine that ends in n in all other cases."""

    classes: frozenset[str]
    english: tuple[str, str]
    gender: str
    german: tuple[str, str]


@dataclass(frozen=True)
class Adjective:
    """With the form that takes endings, and the comparatives or `-`."""

    classes: frozenset[str]
    english: str
    more: str
    german: str
    stem: str
    german_more: str


@dataclass(frozen=True)
class Verb:
    """English base, past and participle; German infinitive with its separable prefix, forms of du and er, participle."""

    subjects: frozenset[str]
    english: tuple[str, str, str]
    prefix: str
    infinitive: str
    irregular: dict[str, str]
    participle: str
    auxiliary: str
    objects: frozenset[str]
    preposition: str
    """German, of the object; `dat` where it is in the dative, empty where it is in the accusative."""

    def present(self, person: str) -> str:
        """A form of the present, without the prefix."""
        if person in self.irregular:
            return self.irregular[person]
        stem = self.infinitive.removesuffix("n").removesuffix("e")
        hard = stem.endswith(("t", "d", "ffn"))
        endings = {
            "du": "est" if hard else "t" if stem.endswith(("s", "ß", "z")) else "st",
            "er": "et" if hard else "t",
        }
        endings |= {"ihr": endings["er"], "ich": "e"}
        if person == "ich" and stem.endswith("el"):
            stem = stem.removesuffix("el") + "l"
        return stem + endings[person] if person in endings else self.infinitive


@dataclass(frozen=True)
class Subject:
    """Who does something, and the person of the German verb."""

    english: str
    german: str
    person: str
    whose: str

    @property
    def third(self) -> bool:
        """Whether English verbs end in s."""
        return self.person == "er"


@dataclass(frozen=True)
class Predicate:
    """A verb in its forms for one subject: English plain, and auxiliary and main verb; German finite, at the end, and both."""

    plain: str
    auxiliary: str
    main: str
    finite: str
    tail: str
    final: str


def form(auxiliary: str, person: str) -> str:
    """Of an auxiliary verb."""
    return IRREGULAR[auxiliary].split()[PERSONS.index(person)]


def joined(*parts: str) -> str:
    """Words with blanks between, where there are any."""
    return " ".join(part for part in parts if part)


def with_s(verb: str) -> str:
    """The third person: `look for` -> `looks for`."""
    first, _, rest = verb.partition(" ")
    if first.endswith(("s", "sh", "ch", "o", "x")):
        first += "es"
    elif first.endswith("y") and first[-2] not in "aeiou":
        first = first[:-1] + "ies"
    else:
        first += "s"
    return joined(first, rest)


def with_ing(verb: str) -> str:
    """The participle: `put on` -> `putting on`."""
    first, _, rest = verb.partition(" ")
    if first.endswith("e") and not first.endswith("ee"):
        first = first[:-1]
    elif first in ("cut", "put", "shut", "get", "run", "swim", "stop", "forget", "begin"):
        first += first[-1]
    return joined(first + "ing", rest)


class Grammar:
    """Makes sentences from a lexicon, as `rng` draws them."""

    def __init__(self, rng: random.Random, path: Path = LEXICON):
        self.rng = rng
        rows: dict[str, list[list[str]]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                kind, *fields = line.split("\t")
                rows.setdefault(kind, []).append(fields)
        self.nouns = [Noun(frozenset(c.split(",")), (e, es), g, (d, ds)) for c, e, es, g, d, ds in rows["noun"]]
        self.adjectives = [Adjective(frozenset(classes.split(",")), *rest) for classes, *rest in rows["adj"]]
        self.verbs = [self._verb(*fields) for fields in rows["verb"]]
        self.moves = [self._verb(*["person", *fields, "s", "-"]) for fields in rows["move"]]
        self.places, self.spots, self.times = rows["place"], rows["spot"], rows["time"]

    @staticmethod
    def _verb(subjects: str, base: str, past: str, participle: str, german: str, du: str, er: str, perfect: str, has: str, objects: str) -> Verb:  # fmt: skip
        prefix, _, infinitive = german.rpartition("|")
        preposition, _, classes = objects.rpartition(":")
        return Verb(
            frozenset(subjects.split(",")),
            (base, past, participle),
            prefix,
            infinitive,
            {} if du == "-" else {"du": du, "er": er},
            perfect,
            {"h": "haben", "s": "sein"}[has],
            frozenset(classes.split(",")),
            preposition,
        )

    def noun(self, classes: frozenset[str] | set[str], countable: bool = False) -> Noun:
        """One of the classes."""
        return self.rng.choice(
            [n for n in self.nouns if n.classes & classes and not (countable and n.english[1] == "-")]
        )

    def phrase(self, noun: Noun, case: Case, kind: str, adjective: Adjective | None = None) -> Pair:
        """A noun with its article: `the`, `a`, `no`, `any` (in a denial), `many` (a plural without any) or a key of `POSSESSIVES`."""
        mass = noun.english[1] == "-"
        many = kind == "many" and not mass
        gender = "p" if many else "m" if noun.gender == "w" else noun.gender
        german = noun.german[many or (noun.gender == "w" and case != NOMINATIVE)]
        if many and case == DATIVE and not german.endswith(("n", "s")):
            german += "n"
        own, english = "", noun.english[many]
        if adjective is not None:
            weak = kind == "the" or case == DATIVE
            usual = "e" if case == NOMINATIVE or (gender in "fn" and case == ACCUSATIVE) else "en"
            own = adjective.stem + (
                "en" if weak and many else usual if kind == "the" else "en" if weak else STRONG[gender][case]
            )
            english = joined(adjective.english, english)
        if kind == "many" or (kind == "a" and mass):
            return english, joined(own, german)
        if kind == "the":
            return f"the {english}", joined(DEFINITE[gender][case], own, german)
        if kind == "a":
            return f"{'an' if english[0] in 'aeiou' else 'a'} {english}", joined(
                "ein" + ENDINGS[gender][case], own, german
            )
        if kind == "any" and not mass:
            return f"{'an' if english[0] in 'aeiou' else 'a'} {english}", joined(
                "kein" + ENDINGS[gender][case], own, german
            )
        whose, stem = (kind, "kein") if kind in ("no", "any") else POSSESSIVES[kind]
        return f"{whose} {english}", joined(stem + ENDINGS[gender][case], own, german)

    def adjective(self, noun: Noun, comparable: bool = False) -> Adjective | None:
        """One that such a thing can be."""
        fitting = [a for a in self.adjectives if a.classes & noun.classes and not (comparable and a.more == "-")]
        return self.rng.choice(fitting) if fitting else None

    def subject(self, classes: frozenset[str] | set[str]) -> Subject:
        """A pronoun, or somebody."""
        if "person" in classes and self.rng.random() < 0.6:
            english, german, person = self.rng.choice(
                [("I", "ich", "ich")] * 3 + [("you", "du", "du"), ("you", "Sie", "sie"), ("he", "er", "er"), ("she", "sie", "er"),
                 ("we", "wir", "wir"), ("we", "wir", "wir"), ("they", "sie", "sie"), ("you", "ihr", "ihr")]
            )  # fmt: skip
            return Subject(english, german, person, "You" if german == "Sie" else english if german != "ihr" else "he")
        noun = self.noun(classes, countable=True)
        kind = self.rng.choice(["I", "he", "she", "we", "You"]) if "family" in noun.classes else "the"
        english, german = self.phrase(noun, NOMINATIVE, kind)
        return Subject(english, german, "er", "she" if noun.gender == "f" else "he")

    def predicate(self, verb: Verb, subject: Subject, tense: str) -> Predicate:
        """`now`, `going on`, `past`, `done`, `soon` (German has its present for it), or one of `MODALS`."""
        base, past, participle = verb.english
        whole = verb.prefix + verb.infinitive
        be = {"ich": "am", "er": "is"}.get(subject.person, "are")
        if tense in MODALS:
            finite = form(MODALS[tense], subject.person)
            if tense in ("want", "like"):
                does = "does" if subject.third else "do"
                plain = (with_s(tense) if subject.third else tense) if tense == "want" else "would like"
                auxiliary, main = (does, f"want to {base}") if tense == "want" else ("would", f"like to {base}")
                return Predicate(f"{plain} to {base}", auxiliary, main, finite, whole, f"{whole} {finite}")
            return Predicate(f"{tense} {base}", tense, base, finite, whole, f"{whole} {finite}")
        if tense == "soon":
            finite = verb.present(subject.person)
            return Predicate(f"will {base}", "will", base, finite, verb.prefix, verb.prefix + finite)
        if tense in ("now", "going on"):
            finite = verb.present(subject.person)
            german = (finite, verb.prefix, verb.prefix + finite)
            if tense == "going on" and base not in STATES:
                return Predicate(f"{be} {with_ing(base)}", be, with_ing(base), *german)
            return Predicate(with_s(base) if subject.third else base, "does" if subject.third else "do", base, *german)
        finite = form(verb.auxiliary, subject.person)
        german = (finite, verb.participle, f"{verb.participle} {finite}")
        if tense == "past":
            return Predicate(past, "did", base, *german)
        have = "has" if subject.third else "have"
        return Predicate(f"{have} {participle}", have, participle, *german)

    def object(self, verb: Verb, subject: Subject, kind: str | None = None) -> tuple[str, str, str]:
        """English, German, and `pronoun`, `phrase` or `preposition`."""
        case = DATIVE if verb.preposition in ("dat", "mit") else ACCUSATIVE
        preposition = "" if verb.preposition == "dat" else verb.preposition
        others = [name for name in PRONOUNS if name.lower() != subject.english.lower() and name != subject.whose]
        if (
            "up" not in verb.english[0]
            and verb.objects & {"person", "family"}
            and kind is None
            and self.rng.random() < 0.3
        ):
            name = self.rng.choice(others)
            english = OBJECTS.get(name, "you")
            return english, joined(preposition, PRONOUNS[name][case - 1]), "preposition" if preposition else "pronoun"
        noun = self.noun(verb.objects)
        if kind is None:
            whose = subject.whose if subject.whose in POSSESSIVES else "he"
            kind = "I" if "family" in noun.classes else self.rng.choice(["the", "the", "a", "many", whose])
            kind = whose if "family" in noun.classes and self.rng.random() < 0.6 else kind
        english, german = self.phrase(noun, case, kind, self.adjective(noun) if self.rng.random() < 0.25 else None)
        return english, joined(preposition, german), "preposition" if preposition else "phrase"

    def clause(self, negated: bool = False) -> tuple[Subject, Predicate, str, str, Pair]:
        """Subject, predicate, what follows in English, what stands between in German, and the time that is said."""
        verb = self.rng.choice(self.verbs + self.moves * 3)
        subject = self.subject(verb.subjects)
        tense = self.rng.choice(["now", "now", "going on", "past", "past", "done", "soon", *MODALS])
        # What must not be done, German says with another verb.
        tense = "can" if negated and tense == "must" else tense
        when = {"now": "now", "past": "past", "done": "", "going on": ""}.get(tense, "later")
        time = self.rng.choice([row[1:] for row in self.times if row[0] == when] or [["", ""]])
        time = ["", ""] if negated or self.rng.random() < 0.5 else time
        predicate = self.predicate(verb, subject, tense)
        if verb in self.moves:
            place = self.rng.choice(self.places)
            return subject, predicate, place[1], joined("nicht" if negated else "", place[3]), (time[0], time[1])
        where = self.rng.choice(self.places) if self.rng.random() < 0.25 else ["", "", "", ""]
        refused = "nicht" if negated else ""
        if verb.objects == {"-"}:
            return subject, predicate, where[0], joined(refused, where[2]), (time[0], time[1])
        kind = self.rng.choice(["the", "any"]) if negated and not verb.preposition else None
        english, german, sort = self.object(verb, subject, kind)
        if kind == "any":
            refused = ""
        # A pronoun would stand before the time.
        time = ["", ""] if sort == "pronoun" else time
        middle = joined(refused, german, where[2]) if sort == "preposition" else joined(german, refused, where[2])
        return subject, predicate, joined(english, where[0]), middle, (time[0], time[1])

    def statement(self) -> Pair:
        """`We bought the bread yesterday.`, with the time in front now and then."""
        subject, verb, english, german, (time, zeit) = self.clause()
        if time and self.rng.random() < 0.35:
            return (
                f"{time}, {subject.english} {joined(verb.plain, english)}.",
                f"{joined(zeit, verb.finite, subject.german, german, verb.tail)}.",
            )
        return (
            f"{subject.english} {joined(verb.plain, english, time)}.",
            f"{joined(subject.german, verb.finite, zeit, german, verb.tail)}.",
        )

    def denial(self) -> Pair:
        """`He does not understand the question.`"""
        subject, verb, english, german, _ = self.clause(negated=True)
        return (
            f"{subject.english} {joined(verb.auxiliary, 'not', verb.main, english)}.",
            f"{joined(subject.german, verb.finite, german, verb.tail)}.",
        )

    def question(self) -> Pair:
        """`Did you find your key?`, with a question word now and then."""
        subject, verb, english, german, (time, zeit) = self.clause()
        words = [("Why", "Warum"), ("How", "Wie")] + [("When", "Wann")] * (not time)
        asked, gefragt = self.rng.choice(words) if self.rng.random() < 0.5 else ("", "")
        return (
            f"{joined(asked, verb.auxiliary, subject.english, verb.main, english, time)}?",
            f"{joined(gefragt, verb.finite, subject.german, zeit, german, verb.tail)}?",
        )

    def subordinate(self) -> Pair:
        """`I think that the teacher is ill.`: a clause whose verb comes last."""
        subject, verb, english, german, (time, zeit) = self.clause()
        clause = (
            f"{subject.english} {joined(verb.plain, english, time)}",
            f"{subject.german} {joined(zeit, german, verb.final)}",
        )
        opening, einleitung = self.rng.choice(
            [("I think that", "Ich glaube, dass"), ("I know that", "Ich weiß, dass"), ("I hope that", "Ich hoffe, dass"),
             ("she says that", "sie sagt, dass"), ("do you know why", "weißt du, warum"), ("do you know when", "wissen Sie, wann"),
             ("I do not know whether", "ich weiß nicht, ob"), ("he asks whether", "er fragt, ob"), ("I am glad that", "ich freue mich, dass"),
             ("I believe that", "ich glaube, dass"), ("they said that", "sie haben gesagt, dass"), ("it is good that", "es ist gut, dass")]
        )  # fmt: skip
        end = "?" if opening.startswith("do ") else "."
        return f"{opening} {clause[0]}{end}", f"{einleitung} {clause[1]}{end}"

    def linked(self) -> Pair:
        """Two clauses: `and`, `but`, `because`, `if`."""
        first, verb, english, german, _ = self.clause()
        second, other, further, weiter, _ = self.clause()
        left = (
            f"{first.english} {joined(verb.plain, english)}",
            f"{first.german} {joined(verb.finite, german, verb.tail)}",
        )
        right = f"{second.english} {joined(other.plain, further)}"
        match self.rng.choice(["and", "but", "because", "if", "when"]):
            case "and" | "but" as word:
                return f"{left[0]}, {word} {right}.", (
                    f"{left[1]}, {'und' if word == 'and' else 'aber'} {second.german} {joined(other.finite, weiter, other.tail)}."
                )
            case "because":
                return f"{left[0]} because {right}.", f"{left[1]}, weil {second.german} {joined(weiter, other.final)}."
            case word:
                return (
                    f"{word} {right}, {left[0]}.",
                    f"wenn {second.german} {joined(weiter, other.final)}, {joined(verb.finite, first.german, german, verb.tail)}.",
                )

    def description(self) -> Pair:
        """`The soup was too hot.`, `My brother is older than the teacher.`"""
        noun = self.noun({"person", "family", "animal", "food", "thing", "clothes", "vehicle", "building", "nature", "event", "idea", "opening", "furniture"})  # fmt: skip
        kind = self.rng.choice(["I", "he", "she", "we", "You", "you"]) if "family" in noun.classes else self.rng.choice(["the", "the", "the", "I", "You"])  # fmt: skip
        compared = self.rng.random() < 0.2
        adjective = self.adjective(noun, comparable=compared)
        if adjective is None:
            return self.description()
        english, german = self.phrase(noun, NOMINATIVE, kind)
        was = self.rng.random() < 0.35
        if compared:
            other = self.phrase(self.noun(noun.classes), NOMINATIVE, "we" if "family" in noun.classes else "the")
            if other[1].split()[-1] != german.split()[-1]:
                return f"{english} {'was' if was else 'is'} {adjective.more} than {other[0]}.", f"{german} {'war' if was else 'ist'} {adjective.german_more} als {other[1]}."  # fmt: skip
        degree, grad = self.rng.choice(
            [("", ""), ("", ""), ("very", "sehr"), ("too", "zu"), ("not", "nicht"), ("not very", "nicht sehr")]
        )
        if self.rng.random() < 0.25:
            return f"{'was' if was else 'is'} {joined(english, degree, adjective.english)}?", f"{'war' if was else 'ist'} {joined(german, grad, adjective.german)}?"  # fmt: skip
        return f"{joined(english, 'was' if was else 'is', degree, adjective.english)}.", f"{joined(german, 'war' if was else 'ist', grad, adjective.german)}."  # fmt: skip

    def state(self) -> Pair:
        """`We were at home yesterday.`, `Are you tired?`"""
        subject = self.subject({"person", "family"})
        was = self.rng.random() < 0.4
        be = (
            ("was" if subject.person in ("ich", "er") else "were")
            if was
            else {"ich": "am", "er": "is"}.get(subject.person, "are")
        )
        ist = form("war" if was else "sein", subject.person)
        if self.rng.random() < 0.5:
            place = self.rng.choice(self.places)
            what, was_denn = place[0], place[2]
        else:
            adjective = self.rng.choice([a for a in self.adjectives if "person" in a.classes])
            degree, grad = self.rng.choice([("", ""), ("very", "sehr"), ("too", "zu"), ("not", "nicht")])
            what, was_denn = joined(degree, adjective.english), joined(grad, adjective.german)
        if self.rng.random() < 0.3:
            return f"{be} {subject.english} {what}?", f"{ist} {subject.german} {was_denn}?"
        return f"{subject.english} {be} {what}.", f"{subject.german} {ist} {was_denn}."

    def whereabouts(self) -> Pair:
        """`The key is in the drawer.`, `Where is your bag?`, `There is a dog in the garden.`"""
        noun = self.noun({"thing", "clothes", "animal", "building", "food"}, countable=True)
        spot = self.rng.choice(self.spots)
        match self.rng.randrange(4):
            case 0:
                english, german = self.phrase(noun, NOMINATIVE, self.rng.choice(["the", "I", "You", "you", "he"]))
                return f"where is {english}?", f"wo ist {german}?"
            case 1:
                english, german = self.phrase(noun, NOMINATIVE, self.rng.choice(["a", "no"]), self.adjective(noun))
                return f"there is {english} {spot[0]}.", f"es ist {german} {spot[1]}." if german.startswith(
                    "kein"
                ) else f"{spot[1]} ist {german}."
            case _:
                english, german = self.phrase(noun, NOMINATIVE, self.rng.choice(["the", "I", "she", "we"]))
                verb = "liegt" if noun.classes & {"thing", "clothes", "food"} else "ist"
                return f"{english} is {spot[0]}.", f"{german} {verb} {spot[1]}."

    def possession(self) -> Pair:
        """`She has a new bicycle.`, `Do you have time?`, `We have no bread.`"""
        subject = self.subject({"person", "family"})
        noun = self.noun({"thing", "clothes", "vehicle", "animal", "family", "food", "furniture", "drink", "building"})
        kind = self.rng.choice(["a", "a", "many", "no"])
        english, german = self.phrase(noun, ACCUSATIVE, kind, self.adjective(noun) if self.rng.random() < 0.5 else None)
        if kind == "many" and noun.english[1] != "-":
            number, zahl = self.rng.choice(
                [("two", "zwei"), ("three", "drei"), ("four", "vier"), ("many", "viele"), ("five", "fünf")]
            )
            english, german = f"{number} {english}", f"{zahl} {german}"
        hat = form("haben", subject.person)
        if kind != "no" and self.rng.random() < 0.3:
            return (
                f"{'does' if subject.third else 'do'} {subject.english} have {english}?",
                f"{hat} {subject.german} {german}?",
            )
        return f"{subject.english} {'has' if subject.third else 'have'} {english}.", f"{subject.german} {hat} {german}."

    def request(self) -> Pair:
        """`Please close the window.`"""
        verb = self.rng.choice([v for v in self.verbs if v.objects != {"-"}])
        you = Subject("you", "Sie", "sie", "You")
        english, german, _ = self.object(verb, you, self.rng.choice(["the", "the", "You"]))
        beginning, bitte = self.rng.choice([("please", "bitte"), ("", ""), ("could you please", "könnten Sie bitte")])
        if beginning.startswith("could"):
            return f"{beginning} {verb.english[0]} {english}?", f"{bitte} {german} {verb.prefix}{verb.infinitive}?"
        return (
            f"{joined(beginning, verb.english[0], english)}.",
            f"{joined(bitte, verb.infinitive, 'Sie', german, verb.prefix)}.",
        )

    def gift(self) -> Pair:
        """`He gives the child an apple.`"""
        base, past, third, infinitive, er, participle = self.rng.choice(
            [("give", "gave", "gives", "geben", "gibt", "gegeben"), ("show", "showed", "shows", "zeigen", "zeigt", "gezeigt"),
             ("bring", "brought", "brings", "bringen", "bringt", "gebracht"), ("send", "sent", "sends", "schicken", "schickt", "geschickt")]
        )  # fmt: skip
        subject = self.subject({"person", "family"})
        person = self.noun({"person", "family"}, countable=True)
        taker = self.phrase(person, DATIVE, subject.whose if "family" in person.classes else "the")
        noun = self.noun({"thing", "text", "food"}, countable=True)
        given = self.phrase(
            noun, ACCUSATIVE, self.rng.choice(["a", "the"]), self.adjective(noun) if self.rng.random() < 0.4 else None
        )
        match self.rng.randrange(3):
            case 0 if subject.third:
                return (
                    f"{subject.english} {third} {taker[0]} {given[0]}.",
                    f"{subject.german} {er} {taker[1]} {given[1]}.",
                )
            case 1:
                hat = form("haben", subject.person)
                return (
                    f"{subject.english} {past} {taker[0]} {given[0]}.",
                    f"{subject.german} {hat} {taker[1]} {given[1]} {participle}.",
                )
            case _:
                return f"{subject.english} will {base} {taker[0]} {given[0]}.", f"{subject.german} {form('werden', subject.person)} {taker[1]} {given[1]} {infinitive}."  # fmt: skip

    def company(self) -> Pair:
        """`I go to the cinema with my sister.`"""
        verb, subject = self.rng.choice(self.moves), self.subject({"person"})
        person = self.noun({"person", "family"}, countable=True)
        friend = self.phrase(
            person, DATIVE, subject.whose if "family" in person.classes else self.rng.choice(["the", "a"])
        )
        place = self.rng.choice(self.places)
        predicate = self.predicate(verb, subject, self.rng.choice(["now", "going on", "past", "will", "want"]))
        return f"{subject.english} {predicate.plain} {place[1]} with {friend[0]}.", f"{subject.german} {predicate.finite} {joined('mit', friend[1], place[3], predicate.tail)}."  # fmt: skip

    def liking(self) -> Pair:
        """`She likes to read books.`, `I like apples.`"""
        subject = self.subject({"person", "family"})
        if self.rng.random() < 0.4:
            english, german = self.phrase(self.noun({"food", "drink", "animal", "event", "music"}), ACCUSATIVE, "many")
            mag = {"ich": "mag", "du": "magst", "er": "mag", "wir": "mögen", "ihr": "mögt", "sie": "mögen"}[
                subject.person
            ]
            if self.rng.random() < 0.3:
                like = "does not like" if subject.third else "do not like"
                return f"{subject.english} {like} {english}.", f"{subject.german} {mag} {german} nicht."
            return (
                f"{subject.english} {'likes' if subject.third else 'like'} {english}.",
                f"{subject.german} {mag} {german}.",
            )
        verb = self.rng.choice([v for v in self.verbs if not v.preposition and "person" in v.subjects])
        english, german = ("", "") if verb.objects == {"-"} else self.object(verb, subject, "many")[:2]
        plain = f"{'likes' if subject.third else 'like'} to {verb.english[0]}"
        return f"{subject.english} {joined(plain, english)}.", f"{subject.german} {joined(verb.present(subject.person), 'gern', german, verb.prefix)}."  # fmt: skip

    def profession(self) -> Pair:
        """`My uncle is a baker.`"""
        who = self.rng.choice([n for n in self.nouns if "family" in n.classes and n.gender == "m"])
        what = self.rng.choice([n for n in self.nouns if "man" in n.classes])
        english, german = self.phrase(who, NOMINATIVE, self.rng.choice(["I", "he", "she", "we", "You"]))
        job, _ = self.phrase(what, NOMINATIVE, "a")
        if self.rng.random() < 0.3:
            return f"{english} wants to become {job}.", f"{german} möchte {what.german[0]} werden."
        return f"{english} is {job}.", f"{german} ist {what.german[0]}."

    def kinds(self) -> list[Callable[[], Pair]]:
        """What is made, the frequent kinds several times."""
        frequent = (
            [self.statement] * 5 + [self.denial] * 2 + [self.question] * 3 + [self.subordinate] * 2 + [self.linked]
        )
        frequent += [self.description] * 2 + [self.possession] * 2
        return [
            *frequent,
            self.state,
            self.whereabouts,
            self.request,
            self.gift,
            self.company,
            self.liking,
            self.profession,
        ]


def shortened(text: str) -> str:
    """As people speak: `I'm`, `don't`."""
    for long, short in SPOKEN.items():
        text = re.sub(rf"\b{long}\b", short, text)
    return text


def capital(text: str) -> str:
    """With a capital at its beginning."""
    return text[0].upper() + text[1:]


def make(number: int, rng: random.Random) -> Iterator[Pair]:
    """So many different pairs of an English sentence and its German."""
    grammar = Grammar(rng)
    seen: set[str] = set()
    kinds = grammar.kinds()
    while len(seen) < number:
        english, german = rng.choice(kinds)()
        if english not in seen:
            seen.add(english)
            yield (
                capital(shortened(english) if rng.random() < 0.3 else english.replace("can not", "cannot")),
                capital(german),
            )
