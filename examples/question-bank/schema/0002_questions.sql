-- tables: questions

-- Keyed by subject: every unique index holds it, or two shards could each accept what only one may.

-- The same question twice in one subject is a mistake of an import, so what makes it the same has one value. Declared
-- immutable because the functions below it are, for text of one database: its encoding does not change.
create function question_digest(stem text, choices text[]) returns bytea
    language sql immutable strict parallel safe
    return sha256(convert_to(stem || E'\x1f' || array_to_string(choices, E'\x1f'), 'UTF8'));

create table questions (
    subject     text        not null check (subject <> ''),
    id          uuid        not null default uuid_v7(),
    stem        text        not null check (stem <> ''),
    choices     text[]      not null check (cardinality(choices) between 2 and 26),
    answer      smallint    not null,
    difficulty  smallint    not null default 3 check (difficulty between 1 and 5),
    explanation text        not null default '',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    digest      bytea       not null generated always as (question_digest(stem, choices)) stored,
    tsv         tsvector    not null generated always as (to_tsvector('english', stem)) stored,

    primary key (subject, id),
    unique (subject, digest),
    check (answer >= 0 and answer < cardinality(choices))
);

comment on column questions.answer is 'Index into choices from 0, as programs count: in SQL it is choices[answer + 1]';

create index questions_by_difficulty on questions (subject, difficulty, id);
create index questions_search on questions using gin (tsv);

create function set_updated_at() returns trigger
    language plpgsql as $$
begin
    new.updated_at := now();
    return new;
end $$;

create trigger questions_updated before update on questions
    for each row
    when (
        (old.stem, old.choices, old.answer, old.difficulty, old.explanation)
        is distinct from (new.stem, new.choices, new.answer, new.difficulty, new.explanation)
    )
    execute function set_updated_at();
