-- Ids that sort by the time they were made (RFC 9562, version 7), so that new rows land at the end of an index. No
-- header: every shard has it. PostgreSQL 18 has uuidv7() of its own.

-- 48 bits of Unix time in milliseconds | 7 | 12 bits of the millisecond's fraction (RFC 9562, 6.2, method 3) | 10 |
-- 62 random bits. The clock is read once, in 1/4096 of a millisecond, so time and fraction are 15 hexadecimal digits in a
-- row, and the 7 is put between them; the rest, the variant's 10 in place, is the second half of a random id.
create function uuid_v7() returns uuid
    language sql volatile parallel safe
    return (
        overlay(
            lpad(to_hex((extract(epoch from clock_timestamp()) * 4096000)::bigint), 15, '0') placing '7' from 13 for 0
        ) || right(gen_random_uuid()::text, 17)
    )::uuid;

comment on function uuid_v7() is 'A UUID of version 7: ids made later sort later, to a quarter of a microsecond on one server';

-- When an id was made, to the millisecond; null for an id of another version.
create function uuid_v7_time(id uuid) returns timestamptz
    language sql immutable strict parallel safe
    return case when get_byte(uuid_send(id), 6) >> 4 = 7 then to_timestamp(
        (('x' || translate(left(id::text, 13), '-', ''))::bit(48)::bigint) / 1000.0
    ) end;
