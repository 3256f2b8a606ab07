use std::io::Read;

use flate2::read::GzDecoder;

use super::*;
use crate::index::sparse::{SparseDocument, SparseWriter};
use crate::job::spec::SparseLanguage;

fn decode(bytes: &[u8]) -> (Header, Vec<PostingsList>, Vec<DocRecord>) {
    let mut rest = bytes;
    let header = Header::decode_length_delimited(&mut rest).unwrap();
    let lists = (0..header.num_postings_lists)
        .map(|_| PostingsList::decode_length_delimited(&mut rest).unwrap());
    let lists = lists.collect();
    let docs = (0..header.num_docs)
        .map(|_| DocRecord::decode_length_delimited(&mut rest).unwrap())
        .collect();
    assert!(rest.is_empty());
    (header, lists, docs)
}

fn exported(
    documents: &[SparseDocument<'_>],
    language: SparseLanguage,
    description: &str,
) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SparseWriter::create(&dir.path().join("sparse"), language).unwrap();
    documents
        .iter()
        .for_each(|document| writer.add(*document).unwrap());
    writer.finish().unwrap();
    let index = SparseIndex::open(&dir.path().join("sparse")).unwrap();
    let path = dir.path().join("sparse.ciff.gz");
    export_ciff(&index, &path, description).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(&path).unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

fn document<'a>(chunk_id: &'a str, text: &'a str) -> SparseDocument<'a> {
    SparseDocument {
        chunk_id,
        doc_id: "d",
        title: None,
        text,
        queries: &[],
    }
}

#[test]
fn fields_add_up_and_lengths_are_exact() {
    let long = "wombat ".repeat(1000);
    let first = SparseDocument {
        title: Some("Dig"),
        queries: &["dig dirt", "dig"],
        ..document("d#0", "dirt dig")
    };
    let bytes = exported(
        &[first, document("d#1", &long), document("d#2", "dirt")],
        SparseLanguage::None,
        "x",
    );
    let (header, lists, docs) = decode(&bytes);
    let list = |term: &str, cf, postings: &[(i32, i32)]| PostingsList {
        term: term.into(),
        df: postings.len() as i64,
        cf,
        postings: postings
            .iter()
            .map(|&(docid, tf)| Posting { docid, tf })
            .collect(),
    };
    let expected = [
        list("dig", 4, &[(0, 4)]),
        list("dirt", 3, &[(0, 2), (2, 1)]),
        list("wombat", 1000, &[(1, 1000)]),
    ];
    assert_eq!(lists, expected);
    let docs: Vec<(i32, &str, i32)> = docs
        .iter()
        .map(|d| (d.docid, d.collection_docid.as_str(), d.doclength))
        .collect();
    assert_eq!(docs, [(0, "d#0", 6), (1, "d#1", 1000), (2, "d#2", 1)]);
    assert_eq!(
        (header.total_terms_in_collection, header.total_docs),
        (1007, 3)
    );
    assert!((header.average_doclength - 1007.0 / 3.0).abs() < 1e-12);
}

#[test]
fn an_empty_index_is_a_header() {
    let (header, lists, docs) = decode(&exported(&[], SparseLanguage::English, "nothing"));
    assert_eq!(
        (
            header.num_docs,
            lists.len(),
            docs.len(),
            header.average_doclength
        ),
        (0, 0, 0, 0.0)
    );
}

/// The toy collection of the CIFF project; its description and 337 bytes are Anserini's.
#[test]
fn the_toy_collection_is_what_anserini_exports() {
    let Some(data) = std::env::var_os("INTENDEX_EVAL_DATA") else {
        crate::skipped(
            "the_toy_collection_is_what_anserini_exports: INTENDEX_EVAL_DATA is not set",
        );
        return;
    };
    let path = Path::new(&data).join("../golden/ciff_toy.json");
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let texts = toy_texts(&golden);
    let documents: Vec<_> = texts.iter().map(|(id, text)| document(id, text)).collect();
    let description = golden["header"]["description"].as_str().unwrap();
    let bytes = exported(&documents, SparseLanguage::None, description);
    assert_eq!(bytes.len() as u64, golden["bytes"].as_u64().unwrap());

    let (header, lists, docs) = decode(&bytes);
    assert_eq!(
        header.average_doclength,
        golden["header"]["average_doclength"].as_f64().unwrap()
    );
    assert_eq!(
        i64::from(header.num_postings_lists),
        golden["header"]["num_postings_lists"].as_i64().unwrap()
    );
    let lists = lists.iter().map(|l| {
        let postings: Vec<_> = l.postings.iter().map(|p| (p.docid, p.tf)).collect();
        serde_json::json!({"term": l.term, "df": l.df, "cf": l.cf, "postings": postings})
    });
    assert_eq!(
        serde_json::Value::from(lists.collect::<Vec<_>>()),
        golden["postings_lists"]
    );
    let docs: Vec<_> = docs
        .iter()
        .map(|d| serde_json::json!([d.docid, d.collection_docid, d.doclength]))
        .collect();
    assert_eq!(serde_json::Value::from(docs), golden["docs"]);
}

/// Texts that have the golden postings: each term as often as it occurs.
fn toy_texts(golden: &serde_json::Value) -> Vec<(String, String)> {
    let docs = golden["docs"].as_array().unwrap();
    let mut texts: Vec<(String, String)> = docs
        .iter()
        .map(|doc| (doc[1].as_str().unwrap().to_owned(), String::new()))
        .collect();
    for list in golden["postings_lists"].as_array().unwrap() {
        let mut doc = 0;
        for posting in list["postings"].as_array().unwrap() {
            doc += posting[0].as_u64().unwrap() as usize;
            for _ in 0..posting[1].as_u64().unwrap() {
                texts[doc].1 += &format!("{} ", list["term"].as_str().unwrap());
            }
        }
    }
    texts
}

#[test]
fn the_reader_gives_what_was_written_and_refuses_less() {
    let documents = [document("d#0", "dirt dig"), document("d#1", "wombat dig")];
    let bytes = exported(&documents, SparseLanguage::None, "x");
    let (header, lists, docs) = decode(&bytes);
    let file = tempfile::NamedTempFile::new().unwrap();
    let zip = |bytes: &[u8]| {
        let mut out = GzEncoder::new(File::create(file.path()).unwrap(), Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap();
    };
    zip(&bytes);
    let mut reader = CiffReader::open(file.path()).unwrap();
    assert_eq!(*reader.header(), header);
    for list in lists {
        assert_eq!(reader.next_list().unwrap(), Some(list));
    }
    assert_eq!(reader.next_list().unwrap(), None);
    for doc in &docs {
        assert_eq!(reader.next_document().unwrap().as_ref(), Some(doc));
    }
    assert_eq!(reader.next_document().unwrap(), None);

    let all = |bytes: &[u8]| -> Result<usize, CiffError> {
        zip(bytes);
        let mut reader = CiffReader::open(file.path())?;
        let mut n = 0;
        while reader.next_document()?.is_some() {
            n += 1;
        }
        Ok(n)
    };
    assert_eq!(all(&bytes).unwrap(), docs.len());
    for end in 0..bytes.len() {
        assert!(all(&bytes[..end]).is_err(), "{end}");
    }
    assert!(all(&[&bytes[..], &[0]].concat()).is_err());
}
