// Lucene's feature fields with miniCOIL's vectors: indexes documents, then answers queries line by line.
//
//   java -cp lucene-core.jar Lucene.java documents.tsv INDEX     (ID, then NAME and NUMBER in turn, between tabs)
//
// A query is a line of the number of hits, then names and weights in turn; its answer the ids, between tabs.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.FeatureField;
import org.apache.lucene.document.StoredField;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.search.BooleanClause;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.store.Directory;
import org.apache.lucene.store.FSDirectory;

public class Lucene {
    public static void main(String[] arguments) throws Exception {
        var utf8 = StandardCharsets.UTF_8;
        var out = new java.io.PrintStream(System.out, true, utf8);
        try (Directory folder = FSDirectory.open(Path.of(arguments[1]))) {
            var config = new IndexWriterConfig(null);
            try (var writer = new IndexWriter(folder, config);
                    BufferedReader lines = Files.newBufferedReader(Path.of(arguments[0]), utf8)) {
                for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                    writer.addDocument(document(line.split("\t", -1)));
                }
                writer.forceMerge(1);
            }
            try (var reader = DirectoryReader.open(folder)) {
                var searcher = new IndexSearcher(reader);
                out.println("ready");
                var queries = new BufferedReader(new InputStreamReader(System.in, utf8));
                for (String line = queries.readLine(); line != null; line = queries.readLine()) {
                    out.println(answer(searcher, line.split("\t", -1)));
                }
            }
        }
    }

    static Document document(String[] columns) {
        var made = new Document();
        made.add(new StoredField("id", columns[0]));
        for (int i = 1; i < columns.length; i += 2) {
            made.add(new FeatureField("minicoil", columns[i], Float.parseFloat(columns[i + 1])));
        }
        return made;
    }

    static String answer(IndexSearcher searcher, String[] columns) throws Exception {
        var query = new BooleanQuery.Builder();
        for (int i = 1; i < columns.length; i += 2) {
            var one = FeatureField.newLinearQuery("minicoil", columns[i], Float.parseFloat(columns[i + 1]));
            query.add(one, BooleanClause.Occur.SHOULD);
        }
        var ids = new StringBuilder();
        for (ScoreDoc hit : searcher.search(query.build(), Integer.parseInt(columns[0])).scoreDocs) {
            ids.append(ids.length() > 0 ? "\t" : "").append(searcher.doc(hit.doc).get("id"));
        }
        return ids.toString();
    }
}
