"""The texts that the tokenizer fixtures are trained on and compared with.

corpus(): what small vocabularies are trained on. strings(): hard cases by hand, then random ones.
All of it is written here or drawn by a fixed seed; only code points that Unicode 12 had already
assigned are used, so that libraries with newer and older tables must agree.
"""

import random
import unicodedata

# Special tokens that every byte-level fixture has, in this order of ids from 0. One is a prefix
# of another: the longer one wins.
SPECIALS = ["<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<|fim|>", "<|fim|>_mid"]
NOTE = "##note##"  # an added token that is not special

ENGLISH = """The quick brown fox doesn't jump over the lazy dog; it's asleep, and they're sure we'll wait.
I'd say that you've seen what I'm doing, but she'll tell him he'd better not. THEY'RE LATE, AREN'T THEY? IT'S OK.
There are 12 months, 365 days and 8760 hours in a year; 1,234,567.89 is a number and 3.14159 another.
In the morning the river was cold and the children were walking along the water with their mother.
Tokens and numbers, letters and spaces: everything that can be written must be read again without loss.
"""
CODE = """def main(argv):\n    for i in range(0, 100):\n        if i % 15 == 0 and i != 0:\n            print("FizzBuzz", i)\n    return None\n\n
#include <stdio.h>\r\nint main(void) {\r\n\tprintf("%d\\n", 42);\r\n\treturn 0;\r\n}\r\n
const getUserName = async (userId) => { await fetch(`https://example.org/api/v1/users/${userId}`); };
<div class="box"><p>Hello &amp; welcome</p></div> // TODO: camelCaseWords, snake_case_words, HTTPServer
{"key": [1, 2.5, -3e10, null, true], "path": "/usr/local/lib/python3"}
"""
OTHERS = """Der Fluß fließt über die Brücke, und die Mädchen hören schöne Lieder. Größe, Übung, Äpfel.
Le garçon a mangé une crème brûlée à l'été; où est la fenêtre? C'est déjà l'été, n'est-ce pas?
El niño pequeño comió mañana. ¿Dónde está? ¡Qué sí! Não há coração sem ação.
Привет, как дела? Меня зовут Анна, и я живу в Москве. Хорошо, спасибо, до свидания.
Η θάλασσα είναι γαλάζια και ο ουρανός καθαρός. Καλημέρα, τι κάνεις σήμερα;
今天天气很好，我们一起去公园吧。你好，世界！学习中文很有意思。
これは日本語のテストです。カタカナとひらがなと漢字を使います。
안녕하세요, 오늘 날씨가 좋네요. 한국어를 공부하고 있습니다.
مرحبا بالعالم، كيف حالك اليوم؟ اللغة العربية جميلة.
שלום עולם, מה שלומך היום? עברית היא שפה יפה.
नमस्ते दुनिया, आप कैसे हैं? यह हिन्दी भाषा है।
สวัสดีชาวโลก วันนี้อากาศดี ภาษาไทยสนุกมาก
Xin chào thế giới, hôm nay trời đẹp quá. Tiếng Việt rất hay.
😀😀 😂 ❤️ 👍🏽 👨‍👩‍👧 🎉🎉🎉 🇩🇪 🇫🇷 ☕ ✨
"""


def corpus():
    rng = random.Random(7)
    lines = (ENGLISH * 6 + CODE * 4 + OTHERS * 4).split("\n")
    lines = [line + "\n" for line in lines]
    words = (ENGLISH + OTHERS).split()
    for _ in range(400):
        pick = [rng.choice(words) for _ in range(rng.randrange(3, 14))]
        gap = rng.choice([" ", " ", " ", "  ", "\n", "\t", "    "])
        lines.append(gap.join(pick) + rng.choice(["\n", "\n\n", ".\r\n", "!\n", " 2024\n", "   "]))
    return lines


# One or more old, assigned characters of every general category that text may contain.
CATEGORIES = {
    "Lu": "AÉЖΩ", "Ll": "zßжω", "Lt": "ǅᾈ", "Lm": "ʰˀー", "Lo": "ªא中あ한",
    "Mn": "\u0301\u0308\u0941", "Mc": "\u0903\u093e", "Me": "\u20dd\u20e3",
    "Nd": "7٣५７", "Nl": "Ⅷ〇ↀ", "No": "²½①৴",
    "Pc": "_‿＿", "Pd": "-—〜", "Ps": "([「", "Pe": ")]」", "Pi": "«“", "Pf": "»”",
    "Po": "!¿。؟§", "Sm": "+<∑÷", "Sc": "$€₿", "Sk": "^`¨🏽", "So": "©☃😀",
    "Zs": " \u00a0\u3000", "Zl": "\u2028", "Zp": "\u2029",
    "Cc": "\x01\x1b\x7f\x9f", "Cf": "\u00ad\u200d\ufeff", "Co": "\ue000\U000f0000",
}
SPACES = [chr(c) for c in (9, 10, 11, 12, 13, 0x1C, 0x1F, 0x20, 0x85, 0xA0, 0x1680, 0x180E, 0x2000,
                           0x2003, 0x200A, 0x200B, 0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000,
                           0xFEFF)]


def hard():
    out = ["", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", "\t\t", " \n", "\n ", " \n ",
           "\r\n\r\n", "a", " a", "a ", "  a", "a  ", " a b ", "a  b", "a   b", "a    b    c",
           "a\nb", "a\n\nb", "a \n b", "a  \n  b", "a\r\nb", "a \r\n b", "\n\n\na", "a\n\n\n",
           " \t \t ", "a\t b", "a \tb", "\n \n \n", "x = 1\n\n\n    y = 2\n", "    return 0;\n}",
           "\ta\n\t\tb\n\t\t\tc", "end of line  \nnext", "   leading and trailing   "]
    # contractions, both cases, other apostrophes, at edges
    out += ["it's", "IT'S", "It'S", "we're we've we'll I'm he'd can't", "WE'RE WE'VE WE'LL I'M HE'D",
            "'s 't 're 've 'm 'll 'd", "'S'T'RE'VE'M'LL'D", "x'll'd've", "'", "''", "'''", "s'",
            "it’s we’ll", "rock 'n' roll", "'tis", "o'clock's", "don't.don't", "l'été",
            "A'sB", "1's", "_'s", "'ſ 'K it'ſ", "HELLO'Sworld", "ab'REcd"]
    # digits
    out += ["0", "12", "123", "1234", "12345", "123456789012", " 1 12 123 1234", "1,234,567.89",
            "3.14e-10", "0x1F4A9", "a1b22c333d4444", "2024-01-31T23:59:59Z", "+49 (0) 30 123456",
            "①②③ ½ ¾ ² ³", "٠١٢٣٤٥", "१२३४", "７８９", "Ⅷ Ⅸ", "1st 2nd 3rd", "v1.2.3-rc4", "12 34\n56",
            "00000000000000000000", "1 000 000", "x²+y³", "¹²³", "10¼"]
    # letters, cases
    out += ["Hello, world!", "HELLO WORLD", "hELLO wORLD", "camelCaseString", "PascalCaseString",
            "XMLHttpRequest", "snake_case_name", "SCREAMING_CASE", "kebab-case-name", "HTTPServer2",
            "ǅungla ǆ Ǆ", "ÉCOLE école École", "ΣΊΣΥΦΟΣ σίσυφος", "Straße STRASSE", "İstanbul ıI",
            "naïve café résumé", "cafe\u0301 re\u0301sume\u0301", "a\u0301\u0302\u0303b",
            "\u0301a", " \u0301", "Zürich–Genève", "Ærøskøbing", "ŉ ﬁ ﬂ ﬃ", "ａｂｃ ＡＢＣ",
            "ʰello wʷorld", "ªº", "Ω Å K", "한국어 공부", "한\u1100\u1161\u11a8",
            "\u1100\u1161\u11a8", "e\u0323\u0302 ệ"]
    # other scripts
    out += ["你好，世界！", "今天天气很好abc123", "我有3个苹果", "これはテストです。", "カタカナひらがな漢字", "ﾊﾝｶｸ",
            "東京タワー 333m", "안녕하세요", "Привет, мир!", "ПРИВЕТ мир", "Καλημέρα κόσμε",
            "مرحبا بالعالم", "السلام عليكم 123", "שלום עולם", "אבג abc דהו", "\u202eRTL\u202c",
            "नमस्ते दुनिया", "क्षत्रिय", "สวัสดีชาวโลก", "ภาษาไทย 123", "Tiếng Việt", "ქართული",
            "Հայերեն", "አማርኛ", "ᏣᎳᎩ", "ᚠᚢᚦ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "𝟘𝟙𝟚", "𐍈 𠜎 𝄞", "𐐷𐐏", "ꙮ", "་བོད་",
            "龥一鿿㐀", "ヿ゠぀ゟ", "가힣퟿", "࠰ࡀ", "々〆〤"]
    # emoji
    out += ["😀", "😀😀😀", " 😀 ", "a😀b", "👍🏽", "👨‍👩‍👧‍👦", "🇩🇪🇫🇷", "🏳️‍🌈", "❤️", "☕️x", "1️⃣2️⃣", "🤷🏻‍♀️!",
            "👩‍💻 codes", "🧑🏿‍🚀🚀", "©®™", "☃☀", "✨✨ ✨", "\ufe0f", "\u200d", "🦊naïve🦊"]
    # punctuation, code
    out += ["...", "…", "!?!?", "--", "---", "==>", "->", "<=>", "a+b=c", "a + b = c", "$100", "€5",
            "100%", "#hashtag @user", "a/b/c", "//", "/* c */", "C:\\path\\file.txt", "\\n", "\"q\"",
            "“quoted”", "«guillemets»", "(a)[b]{c}", "f(x)[0]->y", "x == y && z || !w", "a|b", "~`^|",
            "https://example.org/a?b=c&d=%20#e", "user@example.org", "<div class=\"a\">x</div>",
            "if (x) {\n\treturn y;\n}\n", "print('hello')\n", "!\n\n", ".\n", ".\n\n\nA", "a.\r\nb",
            "/\n", "//\r\n/", "?!\n \n", "}\n\n\n\n}", "a=1;b=2;", "*bold* _it_ `code`", "- item\n- item",
            "|a|b|\n|-|-|", "^_^", ":-)", "$x $y", "a$b", "₿€$", "§ 5", "¿Qué?", "。。。", "、，；：",
            "!a", "!abc", " !abc", "(hello", "_hello", "-x", "a-b", ".net", "#include <stdio.h>",
            "'a'", "\"a\"", "—a", "¡a", "+a", "=b", "<c", "`d"]
    # special-token look-alikes and real ones
    out += ["<|begin|>", "<|end|>", "x<|end|>y", "x <|end|> y", "<|end|><|end|>", "<|im_start|>user\nHi<|im_end|>\n",
            "<|fim|>", "<|fim|>_mid", "<|fim|>_mi", "<|fim|>_middle", "<|fim|>_", "a<|fim|>_mid b",
            "<|END|>", "<| end |>", "<|end|", "|end|>", "<|end|>>", "<<|end|>", "<|<|end|>|>",
            "##note##", "a##note##b", "###note###", "##not##", " ##note## ", "<s>", "</s>", "<s>a</s>",
            "<unk>", "[INST] hi [/INST]", "<0x41>", "<0x0A>", "▁", "▁a", "a▁b", " ▁ ", "Ġ", "Ġa Ċ", "âĢ",
            "  <|end|>  ", "\n<|end|>\n", "<mask>", "a <mask> b", "a  <mask>  b", "<pad> x", "<pad>  x",
            "a <both> b", "x <word> y", "x<word>y", "<word>", "<word>s", "éclair", "e\u0301clair", "<cell>", "a<cell>b", "<cell><cell> "]
    # controls, NUL, non-characters of the ends
    out += ["\0", "a\0b", "\0\0\0", "\x01\x02\x03", "\x1b[31mred\x1b[0m", "\x7f", "\x80\x9f", "\ufeffBOM",
            "\ufffd", "\U0010fffd", "\ue000", "soft\u00adhyphen", "zero\u200bwidth", "a\u2028b\u2029c",
            "a\u0085b", "\u00a0nbsp\u00a0", "a\u3000b"]
    for name, chars in CATEGORIES.items():
        for c in chars:
            assert unicodedata.category(c) == name, (c, name)
        out.append("".join("a%sb %s%s 1%s %s\n" % (c, c, c, c, c) for c in chars[:2]))
        out.append("".join(chars) + " " + chars[0] + "x" + chars[-1] + "9" + chars[0] + "!")
    for w in SPACES:
        out.append("a%sb%s%sc%s %s1" % (w, w, w, w, w))
    # long runs: quadratic algorithms and window edges
    out += ["a" * 300, " " * 200, " " * 97 + "x", "\n" * 100, "=" * 150, "-" * 80 + "\n", "ab" * 150,
            "1" * 100, "\t" * 40 + "x", "hello" * 40, "é" * 60, "中" * 50, "😀" * 30, "\u0301" * 20,
            "!?" * 60, "A" * 64, "aA" * 50, " a" * 100, "\r\n" * 40, "the " * 60, "." * 99]
    seen, unique = set(), []
    for s in out:
        if s not in seen:
            seen.add(s)
            unique.append(s)
    return unique


def randoms(n):
    rng = random.Random(4242)
    words = (ENGLISH + CODE + OTHERS).split()
    bits = ["'s", "'LL", "\r\n", "\n", "  ", "\t", "12", "3456", "é", "e\u0301", "😀", "\u200d", "中文", "!!",
            "//", "<|end|>", "<|fim|>", "_mid", "##note##", "▁", "Ж", "ǅ", "²", "\u00a0", "\0", "<s>",
            "ab", "The", " ", " ", "x", "١", "한", "-", "。", "'"]
    ranges = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x500), (0x5D0, 0x700),
              (0x900, 0xA00), (0x2000, 0x2070), (0x2190, 0x2300), (0x3000, 0x3100), (0x4E00, 0x5000),
              (0xAC00, 0xAD00), (0xFF00, 0xFFF0), (0x1F300, 0x1F650), (0x1D400, 0x1D500)]

    def point():
        low, high = rng.choice(ranges)
        while True:
            c = chr(rng.randrange(low, high))
            if unicodedata.ucd_3_2_0.category(c) != "Cn" or "\U0001f300" <= c:
                if unicodedata.category(c) not in ("Cn", "Cs"):
                    return c

    out = []
    for i in range(n):
        kind = i % 5
        if kind == 0:
            s = "".join(rng.choice(words) + rng.choice([" ", " ", "  ", "\n", "", ", "])
                        for _ in range(rng.randrange(2, 9)))
        elif kind == 1:
            s = "".join(rng.choice(bits) for _ in range(rng.randrange(2, 14)))
        elif kind == 2:
            s = "".join(point() for _ in range(rng.randrange(1, 12)))
        elif kind == 3:
            s = "".join(chr(rng.randrange(32, 127)) for _ in range(rng.randrange(3, 40)))
        else:
            s = "".join(rng.choice([rng.choice(words), rng.choice(bits), point()])
                        for _ in range(rng.randrange(3, 10)))
        out.append(s)
    return out


def strings():
    return hard() + randoms(110)
