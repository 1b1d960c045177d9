"""The language of a file, and the comment lines about it that aiXcoder saw in training before a file's text.

Names are spelled as in training. A file of a language without a row has no comment lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Language:
    """How the model knows a language: its name and what opens and closes a comment."""

    name: str
    opening: str
    closing: str = ""

    def comment(self, text: str) -> str:
        """`text` as one comment line, with its line end."""
        return f"{self.opening}{text}{self.closing}\n"


# comment style | name | names that editors use for it | extensions and whole file names
_ROWS = """
#      | Python | python3 py starlark | .py .pyw .pyi .pyx .pxd .pxi .bzl .gyp .tac .wsgi SConstruct BUILD WORKSPACE
#      | Shell | sh bash zsh shellscript | .sh .bash .bats .command .ksh .zsh .tmux .fish .bashrc .zshrc .profile
#      | Ruby | rb | .rb .builder .gemspec .god .podspec .rake .ru .thor .erb Gemfile Rakefile Vagrantfile Podfile
#      | Perl | pl perl6 raku | .pl .pm .perl .ph .plx .psgi .t .raku
#      | R | | .r .R .rsx .Rprofile
#      | RMarkdown | rmd | .rmd .Rmd .qmd
#      | GDScript | | .gd
#      | Julia | | .jl
#      | Elixir | | .ex .exs
#      | PowerShell | pwsh ps1 | .ps1 .psm1 .psd1
#      | SPARQL | | .sparql .rq
#      | CMake | | .cmake .cmake.in CMakeLists.txt
#      | Dockerfile | docker | .dockerfile Dockerfile Containerfile
#      | Makefile | make | .mk .mak .mkfile Makefile makefile GNUmakefile Kbuild
#      | YAML | yml dockercompose helm | .yml .yaml .clang-format .clang-tidy
#      | TOML | | .toml Pipfile Cargo.lock poetry.lock uv.lock
#      | INI | properties dotenv editorconfig | .ini .cfg .conf .properties .prefs .editorconfig .gitconfig .service
#      | HCL | terraform | .hcl .tf .tfvars .nomad
#      | GraphQL | gql | .graphql .gql
#      | Nix | | .nix
#      | TCSH | csh | .tcsh .csh
#      | Tcl | | .tcl .adp .tm
#      | AWK | | .awk .gawk .mawk .nawk
#      | Maple | | .mpl
#      | CoffeeScript | coffee | .coffee .cjsx .cson .iced Cakefile
#      | Literate CoffeeScript | | .litcoffee
#      | Nim | | .nim .nims .nimble
#      | Crystal | | .cr
//     | C | | .c .idc .cats
//     | C++ | cpp cxx cplusplus | .cpp .cc .cxx .c++ .cp .h .hpp .hh .hxx .h++ .inl .ipp .tcc .tpp .ino .C .H
//     | C# | csharp c-sharp cs razor | .cs .csx .cake .cshtml .razor
//     | Cuda | cu cuda-cpp | .cu .cuh
//     | Dart | | .dart
//     | Objective-C | objectivec objc | .m
//     | Objective-C++ | objective-cpp objectivecpp objcpp | .mm
//     | swift | | .swift
//     | Java | | .java .aj
//     | Scala | | .scala .sbt .sc
//     | PHP | | .php .ctp .php3 .php4 .php5 .phps .phpt .phtml
//     | JavaScript | js node | .js .mjs .cjs .es6 .jsm .jake .njs .sjs .ssjs Jakefile
//     | JSX | javascriptreact | .jsx
//     | TypeScript | ts | .ts .mts .cts
//     | TypeScript with JSX | tsx typescriptreact | .tsx
//     | Go | golang | .go go.mod
//     | Rust | rs | .rs .rs.in
//     | Kotlin | kt | .kt .kts .ktm
//     | Pascal | | .pas .dpr .lpr .inc
//     | Groovy | gradle | .groovy .gradle .grt .gtpl .gvy .gsp Jenkinsfile
//     | ActionScript | | .as
//     | Solidity | | .sol
//     | F# | fsharp f-sharp | .fs .fsi .fsx
//     | GLSL | hlsl shader | .glsl .frag .fsh .fshader .geom .vert .vsh .vshader .gshader .shader .comp
//     | ANTLR | antlr4 | .g4
//     | Verilog | | .v .veo
//     | SystemVerilog | | .sv .svh .vh
//     | Protocol Buffer | proto proto3 protobuf protocol-buffer | .proto
//     | Bluespec | | .bsv
//     | Java Server Pages | jsp | .jsp
//     | Mathematica | wolfram | .mathematica .nb .nbp .wl .wlt
//     | Zig | | .zig .zon
//     | Stan | | .stan
//     | Augeas | | .aug
//     | Cobol | | .cob .cbl .cobol .cpy
//     | SCSS | | .scss
//     | Less | | .less
//     | Sass | | .sass
//     | Stylus | | .styl
//     | JSON | jsonc json5 jsonl | .json .jsonc .json5 .geojson .topojson .webmanifest .eslintrc .babelrc .prettierrc
//     | D | dlang | .d .di
//     | Vala | | .vala .vapi
//     | Metal | | .metal
//     | Jsonnet | | .jsonnet .libsonnet
/* */  | CSS | postcss | .css .pcss
/* */  | Alloy | | .als
/* */  | Thrift | | .thrift
<!---->| HTML | htm django-html jinja-html handlebars | .html .htm .xht .xhtml .hbs .handlebars .mustache .jinja .ejs
<!---->| Vue | vue-html | .vue
<!---->| Svelte | | .svelte
<!---->| Markdown | md mdx | .md .markdown .mkd .mkdn .mkdown .mdx
<!---->| XML | xsd wsdl | .xml .ant .csproj .fsproj .vbproj .props .targets .nuspec .plist .xsd .wsdl .xaml .svg
<!---->| XSLT | xsl | .xslt .xsl
--     | SQL | plsql mysql pgsql postgres sqlite tsql | .sql .ddl .pls .plsql .pks .pkb .prc .psql .cql .hql
--     | Lua | | .lua .nse .rbxs .wlua .luau
--     | Haskell | | .hs .hsc .hs-boot
--     | Elm | | .elm
--     | Idris | | .idr
--     | Lean | lean4 | .lean .hlean
--     | Agda | | .agda
--     | Literate Agda | | .lagda
--     | Ada | | .ada .adb .ads
--     | VHDL | | .vhd .vhdl .vhf .vhi .vho .vhs .vht .vhw
--     | AppleScript | | .applescript .scpt
;      | Assembly | asm nasm | .asm .nasm .a51 .s .S
;      | Lisp | | .lisp .lsp
;      | Common Lisp | commonlisp | .cl .asd .ny .podsl .sexp
;      | Emacs Lisp | elisp emacslisp | .el .emacs
;      | Scheme | | .scm .sld .sls .sps .ss
;      | Racket | | .rkt .rktd .rktl .scrbl
;      | Clojure | clj clojurescript | .clj .boot .cljc .cljs .cljx .edn
%      | TeX | latex bibtex | .tex .aux .bbx .bib .cbx .cls .dtx .ltx .sty
%      | Prolog | | .prolog .pro .yap
%      | Matlab | octave | .matlab .oct
%      | Erlang | | .erl .escript .hrl .xrl rebar.config
'      | Visual Basic | vb vbnet visual-basic | .vb .bas .frm .frx .vba .vbs
'      | Basic | freebasic | .bi
'      | Excel | | .xlm
!      | Fortran | fortran-modern FortranFreeForm fortran_fixed-form | .f .f77 .f90 .f95 .f03 .f08 .for .fpp
{}     | Delphi | | .dfm .dpk
(**)   | OCaml | | .ml .mli .mll .mly .eliom .eliomi
(**)   | Standard ML | sml | .sml .sig .fun .ML
(**)   | Isabelle | | .thy
*      | Abap | | .abap
*      | SAS | | .sas
*      | Stata | | .do .ado .doh .sthlp
..     | reStructuredText | rst | .rst .rest
''     | Smalltalk | | .st
>      | Literate Haskell | lhs | .lhs
"""

# What opens and closes the comment, spaces included, as training wrote it: `# text`, `!text`, `<!--text-->`.
_STYLES = {
    "/* */": ("/* ", " */"),
    "<!---->": ("<!--", "-->"),
    "(**)": ("(*", "*)"),
    "{}": ("{", "}"),
    "!": ("!", ""),
}
# Training commented Lua by slashes.
_OPENINGS = {"Lua": "// ", "Tcl": "// ", "AWK": "// "}


def _tables() -> tuple[dict[str, Language], dict[str, Language], dict[str, Language]]:
    names: dict[str, Language] = {}
    extensions: dict[str, Language] = {}
    files: dict[str, Language] = {}
    for row in _ROWS.strip().splitlines():
        style, name, aliases, patterns = (part.strip() for part in row.split("|"))
        opening, closing = _STYLES.get(style, (style + " ", ""))
        language = Language(name, _OPENINGS.get(name, opening), closing)
        for alias in (name, *aliases.split()):
            names[alias.lower()] = language
        for pattern in patterns.split():
            (extensions if pattern.startswith(".") else files)[pattern] = language
    return names, extensions, files


_NAMES, _EXTENSIONS, _FILES = _tables()


def by_name(name: str) -> Language | None:
    """Language of a name as editors write it: `Python`, `typescriptreact`, `cpp`."""
    return _NAMES.get(name.strip().lower())


def by_path(path: str) -> Language | None:
    """Language of a file by its name: whole name, then the longest extension, as spelled before lower case."""
    file = PurePosixPath(path.replace("\\", "/")).name
    if language := _FILES.get(file) or _EXTENSIONS.get(file):
        return language
    parts = file.split(".")
    for n in range(1, len(parts)):
        extension = "." + ".".join(parts[n:])
        if language := _EXTENSIONS.get(extension) or _EXTENSIONS.get(extension.lower()):
            return language
    return _FILES.get(parts[0])  # Dockerfile.debug, Makefile.am


def header(path: str | None, language: str | None) -> str:
    """The comment lines that precede the prefix, each with its line end; "" where the language is not known.

    `language` as the client names it comes before what the file's name tells. A path is one line: runs of white space
    and control characters in it become one space.
    """
    path = re.sub(r"[\s\x00-\x1f\x7f]+", " ", path or "").strip()
    known = (by_name(language) if language else None) or (by_path(path) if path else None)
    if known is None:
        return ""
    lines = known.comment(f"the file path is: {path}") if path else ""
    return lines + known.comment(f"the code file is written by {known.name}")
