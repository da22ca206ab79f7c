create or replace function pgfleet."owns_answers"(key text, seconds jsonb) returns boolean language plpgsql stable parallel safe as $owned$
begin
if (key collate pg_catalog."C") operator(pg_catalog.=) any (array['Business', 'Drama']::pg_catalog.text[]) then return true; end if;
if (key collate pg_catalog."C") operator(pg_catalog.=) 'Law' then return case when pg_catalog.jsonb_exists(seconds, 'id') then pg_catalog.mod(pg_catalog.mod(pg_catalog.mod(pg_catalog.numeric_add((pg_catalog.textcat('x', pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace(((pg_catalog.jsonb_object_field_text(seconds, 'id'))::pg_catalog.text), E'\\', E'\\\\'), 'escape')), 'hex'), 16))::bit(64)::bigint)::numeric, 18446744073709551616), 18446744073709551616), 64)::integer, 2) operator(pg_catalog.=) any ('{0}'::pg_catalog.int4[]) else true end; end if;
return pg_catalog.mod(pg_catalog.mod(pg_catalog.mod(pg_catalog.numeric_add((pg_catalog.textcat('x', pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace((((key collate pg_catalog."C"))::pg_catalog.text), E'\\', E'\\\\'), 'escape')), 'hex'), 16))::bit(64)::bigint)::numeric, 18446744073709551616), 18446744073709551616), 64)::integer, 2) operator(pg_catalog.=) any ('{1}'::pg_catalog.int4[]);
end
$owned$;
create or replace function pgfleet."owns_questions"(key text, seconds jsonb) returns boolean language plpgsql stable parallel safe as $owned$
begin
if (key collate pg_catalog."C") operator(pg_catalog.=) any (array['Business', 'Drama']::pg_catalog.text[]) then return true; end if;
if (key collate pg_catalog."C") operator(pg_catalog.=) 'Law' then return case when pg_catalog.jsonb_exists(seconds, 'id') then pg_catalog.mod(pg_catalog.mod(pg_catalog.mod(pg_catalog.numeric_add((pg_catalog.textcat('x', pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace(((pg_catalog.jsonb_object_field_text(seconds, 'id'))::pg_catalog.text), E'\\', E'\\\\'), 'escape')), 'hex'), 16))::bit(64)::bigint)::numeric, 18446744073709551616), 18446744073709551616), 64)::integer, 2) operator(pg_catalog.=) any ('{0}'::pg_catalog.int4[]) else true end; end if;
return pg_catalog.mod(pg_catalog.mod(pg_catalog.mod(pg_catalog.numeric_add((pg_catalog.textcat('x', pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace((((key collate pg_catalog."C"))::pg_catalog.text), E'\\', E'\\\\'), 'escape')), 'hex'), 16))::bit(64)::bigint)::numeric, 18446744073709551616), 18446744073709551616), 64)::integer, 2) operator(pg_catalog.=) any ('{1}'::pg_catalog.int4[]);
end
$owned$;
create or replace function pgfleet.holds(relation text, claim text) returns boolean language plpgsql stable parallel safe as $owned$
declare
root constant pg_catalog.text := pg_catalog.split_part(claim, ':', 1);
key constant pg_catalog.text := pg_catalog.substr(claim, pg_catalog.strpos(claim, ':') operator(pg_catalog.+) 1);
begin
if root operator(pg_catalog.=) 'questions' and relation operator(pg_catalog.=) any (array['answers', 'questions']::pg_catalog.text[]) then
if (key collate pg_catalog."C") operator(pg_catalog.=) any (array['Business', 'Drama']::pg_catalog.text[]) then return true; end if;
if (key collate pg_catalog."C") operator(pg_catalog.=) 'Law' then return true; end if;
return pg_catalog.mod(pg_catalog.mod(pg_catalog.mod(pg_catalog.numeric_add((pg_catalog.textcat('x', pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace((((key collate pg_catalog."C"))::pg_catalog.text), E'\\', E'\\\\'), 'escape')), 'hex'), 16))::bit(64)::bigint)::numeric, 18446744073709551616), 18446744073709551616), 64)::integer, 2) operator(pg_catalog.=) any ('{1}'::pg_catalog.int4[]);
end if;
return null;
end
$owned$;
revoke execute on function pgfleet.holds(text, text) from public;
grant execute on function pgfleet."owns_answers"(text, jsonb) to public;
grant execute on function pgfleet."owns_questions"(text, jsonb) to public;
